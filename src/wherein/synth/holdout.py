"""Which object names belong to a COCO or VOC category, and so may not be seen in PIN's training.

Stricter than an equality of names: synonyms, plurals, sub-types ("taxi" is a car, "duck" is a bird) and every name with
a category's word in it ("apple slice") belong to the category.
"""

from __future__ import annotations

from functools import lru_cache

# COCO's 80 categories, each with its synonyms and sub-types; "_" stands for a space.
_CATEGORIES = """
person: people human man woman boy girl child baby kid lady gentleman guy toddler infant teenager adult police_officer
    construction_worker artist astronaut chef cook detective doctor nurse scientist chemist factory_worker farmer
    firefighter fireman judge mechanic office_worker pilot royal_guard guard singer student superhero supervillain
    teacher dancer ballerina bride groom clown golfer ice_skater skater water_skier skier snowboarder surfer swimmer
    runner cyclist rider scuba_diver diver blacksmith waiter waitress prince princess king queen knight soldier sailor
    pirate ninja cowboy santa_claus mrs_claus wizard witch elf fairy genie vampire zombie mermaid angel troll ogre
    goblin acrobat player athlete backpacker hiker paratrooper carpenter painter father mother grandfather grandmother
    grandpa grandma businessman businesswoman policeman policewoman worker
bicycle: bike cycle mountain_bike tricycle tandem
car: automobile taxi cab suv sedan police_car race_car racing_car sports_car limousine jeep minivan convertible
    beetle_car hatchback coupe hummer
motorcycle: motorbike moped motor_scooter vespa scooter
airplane: aeroplane plane jet jet_plane aircraft airliner biplane fighter_jet jumbo_jet glider warplane
bus: minibus trolleybus double_decker_bus school_bus coach
train: locomotive metro subway monorail tram light_rail train_car boxcar caboose railway carriage railcar streetcar
    trolley steam_engine
truck: lorry semi_truck pickup pickup_truck fire_truck fire_engine garbage_truck dump_truck tow_truck delivery_truck
    dumper cement_truck van ambulance
boat: ship sailboat canoe kayak motorboat speedboat ferry rowboat dinghy yacht raft gondola trawler tugboat barge
    catamaran houseboat sailing_ship submarine shipwreck vessel lifeboat steamboat
traffic_light: stoplight traffic_signal semaphore
fire_hydrant: fireplug hydrant
stop_sign:
parking_meter:
bench: park_bench pew
bird: duck goose hen chicken rooster cockerel chick baby_chick turkey eagle hawk falcon owl parrot parakeet cockatoo
    macaw lorikeet rosella swan penguin flamingo pelican peacock peahen peafowl pigeon dove crow raven seagull gull
    sparrow robin bluebird blackbird magpie ostrich emu rhea heron crowned_crane stork cuckoo drake gander guinea_fowl
    guineafowl lark quetzal toucan vulture puffin cormorant dodo woodpecker hummingbird kingfisher canary finch
    albatross kiwi_bird quail pheasant condor ibis
cat: kitten tomcat tabby siamese persian_cat kitty
dog: puppy poodle beagle bulldog golden_retriever labrador hound dalmatian terrier dachshund husky sheepdog pug collie
    dingo retriever chihuahua spaniel
horse: pony foal mare stallion colt racehorse mustang
sheep: lamb ram ewe
cow: cattle bull calf ox oxen heifer zebu
elephant: mammoth
bear: polar_bear panda grizzly brown_bear cub
zebra:
giraffe:
backpack: rucksack knapsack
umbrella: parasol
handbag: purse clutch_bag clutch
tie: necktie bow_tie bowtie
suitcase: luggage briefcase
frisbee: flying_disc
skis: ski
snowboard:
sports_ball: soccer_ball basketball baseball football american_football volleyball tennis_ball golf_ball
    beach_ball bowling_ball billiard_ball rugby_ball handball softball cricket_ball
kite:
baseball_bat:
baseball_glove: baseball_mitt
skateboard:
surfboard: surf_board
tennis_racket: racket badminton_racket table_tennis_racket tennis_racquet racquet
bottle: wine_bottle beer_bottle water_bottle baby_bottle champagne_bottle
wine_glass: goblet champagne_glass cocktail cocktail_glass
cup: mug teacup tumbler beer_mug glass cup_of_coffee soda_cup espresso
fork: barbecue_fork
knife: dagger penknife
spoon: teaspoon ladle
bowl: bowl_of_soup bowl_of_rice bowl_of_noodles soup_bowl
banana:
apple: apple_core candy_apple
sandwich: hamburger burger cheeseburger submarine_sandwich breakfast_sandwich
orange: tangerine mandarin clementine mandarine
broccoli:
carrot:
hot_dog: hotdog corn_dog
pizza:
donut: doughnut
cake: cupcake birthday_cake shortcake cheesecake
chair: armchair stool office_chair rocking_chair wheelchair deckchair
couch: sofa settee loveseat
potted_plant: pottedplant houseplant house_plant flower_pot flowerpot bonsai
bed: bunk_bed cot crib
dining_table: table diningtable desk kitchen_table coffee_table
toilet: urinal
tv: television tvmonitor tv_monitor monitor screen desktop_computer television_set
laptop: notebook_computer laptop_computer
mouse: computer_mouse rat
remote: remote_control
keyboard: computer_keyboard
cell_phone: mobile_phone smartphone cellphone mobile cellular phone
microwave: microwave_oven
oven: stove
toaster:
sink: washbasin basin
refrigerator: fridge
book: bible diary notebook ledger paperback notepad
clock: alarm_clock mantel_clock clockface
vase: amphora funeral_urn urn
scissors: shears
teddy_bear: teddy stuffed_bear teddybear
hair_drier: hair_dryer hairdryer blow_dryer
toothbrush:
"""

# Other things whose names end like one of the above.
_EXCEPTIONS = ("glasses", "magnifying glass", "paper plane", "chess king", "chess queen", "chess knight")

COCO = tuple(line.split(":")[0].replace("_", " ") for line in _CATEGORIES.split("\n") if ":" in line)
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def _table() -> dict[str, str]:
    """Every name of _CATEGORIES -> its COCO category."""
    table: dict[str, str] = {}
    for line in _CATEGORIES.replace("\n ", " ").strip().splitlines():
        category, synonyms = line.split(":")
        for name in (category, *synonyms.split()):
            table[name.replace("_", " ")] = category.replace("_", " ")
    return table


_TABLE = _table()


@lru_cache(maxsize=4096)
def category_of(name: str) -> str | None:
    """The COCO category (VOC's 20 are among them) an object name belongs to, or None.

    Looked up, singular or plural: the whole name and its endings ("red mountain bike") among categories, synonyms and
    sub-types, then every single word among the categories ("train car", "apple slice").
    """
    words = words_of(name)
    if " ".join(words) in _EXCEPTIONS:
        return None
    for start in range(len(words)):
        for form in singulars(" ".join(words[start:])):
            if form in _TABLE:
                return _TABLE[form]
    for form in (form for word in words for form in singulars(word)):
        if form in COCO or form in VOC:
            return _TABLE[form]
    return None


def is_held_out(name: str) -> bool:
    """True if the name belongs to a COCO or VOC category."""
    return category_of(name) is not None


def may_be_held_out(name: str) -> bool:
    """True also if a name may say what is in such a thing: "glass of milk" of a cup. It is not pasted in training,
    and not asked for as one of the category either."""
    return is_held_out(name) or is_held_out(name.partition(" of ")[0])


def words_of(name: str) -> list[str]:
    """The words of a name, lower case: "T-shirt" -> "t", "shirt"."""
    return name.lower().replace("_", " ").replace("-", " ").split()


def singulars(name: str) -> tuple[str, ...]:
    """The name and what it may be a plural of."""
    irregular = {"children": "child", "mice": "mouse", "geese": "goose", "oxen": "ox"}
    head, _, last = name.rpartition(" ")
    forms = [last, irregular.get(last, last)]
    for plural, singular in (("ies", "y"), ("ves", "fe"), ("ves", "f"), ("men", "man"), ("es", ""), ("s", "")):
        if last.endswith(plural):
            forms.append(last.removesuffix(plural) + singular)
    return tuple(f"{head} {form}".strip() for form in forms)
