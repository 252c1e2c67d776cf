"""Adapters: adapter_config.json + adapter_model.safetensors + README.md, in a folder or in a repository on the Hub.

Notable choices:
- a folder is written at once or not at all
- of a repository only these three files are ever fetched or uploaded: nothing that could be executed, no pickle
- the configuration holds the SHA-256 of the weights: a flipped byte in them would be no error, only another answer
- a method without weights needs no folder: its configuration alone is its adapter, a JSON file
- an adapter belongs to a model by the model's fingerprint, not by its name: a Hub id, and a folder with the same model
  in it, are one. The facts kept beside the fingerprint are there to say what differs
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherein.errors import AdapterError
from wherein.journal import write_text, writing
from wherein.vlm.base import FrozenVLM

CONFIG, WEIGHTS, CARD = FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")
VERSION = 2  # of the configuration's layout
DIGEST = "weights_sha256"  # of the file of weights; adapters that were saved without it are loaded as they are
TEXTS, OBJECTS = ("method", "base_model", "fingerprint"), ("base", "config")
HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/\w[\w.-]*)(?:@(\S+))?", re.ASCII)  # user/repo[@revision]
HERE = "path/to/this/adapter"  # what a model card calls the adapter until it has a name on the Hub
LICENCE = "apache-2.0"  # of an adapter whose card says nothing else


def save(
    folder: str | Path, method: str, vlm: FrozenVLM, config: Mapping[str, Any], weights: Mapping[str, Tensor], card: str
) -> Path:
    """Write an adapter into `folder` (made if need be), first beside the files that are there, then in their place.

    `card` tells how it was made; how to use it is appended, and the metadata are put in front where it has none.
    An earlier adapter's configuration goes first and the new one comes last: a save that fails in between leaves an
    adapter that `load` refuses, never new weights under old settings. Raises InputError where it cannot be written.
    """
    target, about = Path(folder), _about(method, vlm, config)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as temporary:
            place = Path(temporary)
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, place / WEIGHTS)
            about[DIGEST] = _digest(place / WEIGHTS)
            (place / CARD).write_text(_whole_card(card, method, vlm.name), encoding="utf-8")
            (place / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            (target / CONFIG).unlink(missing_ok=True)
            for name in (WEIGHTS, CARD, CONFIG):
                os.replace(place / name, target / name)
    return target


def save_file_only(
    path: str | Path, method: str, vlm: FrozenVLM, config: Mapping[str, Any], found: Mapping[str, Any]
) -> Path:
    """Write the adapter of a method without weights as one JSON file, at once; `found` tells how it was come by."""
    target = Path(path)
    write_text(target, json.dumps({**_about(method, vlm, config), "found": dict(found)}, indent=2) + "\n")
    return target


def load(name: str | Path, method: str, vlm: FrozenVLM) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and weights of the adapter called `name` (see `find`) for `method` on `vlm`.

    Raises AdapterError when it is not there, a file is missing or damaged, or it was made for another method or model.
    """
    place = find(name)
    about = _read(place)
    if about["method"] != method:
        raise AdapterError(
            f"The adapter {name} was made for the method {about['method']!r}, but here it is {method!r}."
        )
    if about["fingerprint"] != vlm.fingerprint and not _same_but_quantised(about["base"], vlm):
        raise AdapterError(
            f"The adapter {name} was made for another model ({about['base_model']!r} there, {vlm.name!r} here): "
            f"{_difference(about['base'], facts(vlm))}."
        )
    return about["config"], {} if place.is_file() else _weights(place, about)


def find(name: str | Path) -> Path:
    """An adapter's folder or file: `name` itself, or where the Hub's cache has what "user/repo[@revision]" says.

    What is here comes first, and what can only be a path is never sent to the Hub. Raises AdapterError if there is
    neither.
    """
    if os.path.isdir(name) or (os.path.isfile(name) and Path(name).name != CONFIG):  # that one belongs to a folder
        return Path(name)
    hub_id = HUB_ID.fullmatch(name) if isinstance(name, str) and not os.path.exists(name) else None
    if hub_id is None:
        raise AdapterError(
            f"No adapter at {str(name)!r}: expected a folder with {CONFIG} and {WEIGHTS}, "
            "or a Hub id such as user/pin-llava."
        )
    try:
        return Path(huggingface_hub.snapshot_download(hub_id[1], revision=hub_id[2], allow_patterns=list(FILES)))
    except Exception as error:  # the Hub's client lets its HTTP library's errors through, whichever that is
        raise AdapterError(f"No adapter at {name!r}: {_not_fetched(error)}.") from error


def method_of(name: str | Path) -> str:
    """The method that the adapter called `name` is for.

    Raises AdapterError when it is not there, or its configuration is damaged.
    """
    return str(_read(find(name))["method"])


def check(name: str | Path) -> str:
    """The method that the adapter called `name` is for, after all was looked at that can be without its model.

    Raises AdapterError when it is not there, or anything of it is missing or damaged.
    """
    place = find(name)
    about = _read(place)
    if place.is_dir():
        _weights(place, about)
    return str(about["method"])


def found(name: str | Path) -> dict[str, Any]:
    """What an adapter without weights says of how it was come by; nothing where it says nothing."""
    return dict(_read(find(name)).get("found", {}))


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False, token: str | None = None) -> str:
    """Upload the adapter in `folder` to the repository `repo_id`, "user/name", and return its URL.

    The repository is made if need be, and `private` counts only then. `token`: one that may write there; None: that of
    `hf auth login`. On the Hub the card calls the adapter by its id.
    Raises AdapterError when the folder holds no sound adapter, or the Hub cannot be reached or refuses.
    """
    place, hub_id = Path(folder), HUB_ID.fullmatch(repo_id)
    if hub_id is None or hub_id[2]:
        raise AdapterError(f"{repo_id!r} is not the id of a repository on the Hub: expected user/name.")
    if missing := [name for name in FILES if not (place / name).is_file()]:
        raise AdapterError(f"No adapter at {folder} to upload: {' and '.join(missing)} not found.")
    _weights(place, _read(place))
    if huggingface_hub.is_offline_mode():
        raise AdapterError(f"{folder} cannot be uploaded to {repo_id} while HF_HUB_OFFLINE is set: unset it.")
    with tempfile.TemporaryDirectory() as temporary:
        for name in FILES:
            shutil.copyfile(place / name, Path(temporary) / name)
        card = Path(temporary) / CARD
        card.write_bytes(card.read_bytes().replace(HERE.encode(), repo_id.encode()))
        return _uploaded(temporary, repo_id, private, token)


def fill(module: Any, weights: Mapping[str, Tensor], name: str | Path) -> None:
    """Load `weights` into `module`, every key used. Raises AdapterError where they do not fit."""
    try:
        module.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    except RuntimeError as error:
        raise AdapterError(
            f"The weights in {name} do not fit their configuration: {str(error).splitlines()[-1].strip()}."
        ) from error


def facts(vlm: FrozenVLM) -> dict[str, Any]:
    """What is kept of a base model so that people can be told how another one differs; plain values for JSON."""
    sizes = [parameter.numel() for parameter in vlm.parameters()]
    return {
        "class": type(vlm).__name__,
        "feature_dim": vlm.feature_dim,
        "grid": list(vlm.grid),
        "size": list(vlm.size),
        "hidden_size": vlm.width("connector_tokens"),
        "parameters": sum(sizes),
        "tensors": len(sizes),
    }


def _read(place: Path) -> dict[str, Any]:
    """The configuration that is a file, or in a folder.

    Raises AdapterError if it is missing, damaged or of another version.
    """
    path = place if place.is_file() else place / CONFIG
    if path.suffix == Path(WEIGHTS).suffix:
        raise AdapterError(f"{path} holds weights alone: give the folder of the adapter, or its {CONFIG}.")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = about["wherein"]
        if not isinstance(version, int):
            raise TypeError("wherein is not a number")
        if version == VERSION:
            _check(about)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(
            f"{path} is not an adapter's configuration ({type(error).__name__}, {_brief(error)}): save it again."
        ) from error
    if version < VERSION:
        raise AdapterError(f"The adapter {place} was saved by an earlier version of wherein: save it again with this.")
    if version > VERSION:
        raise AdapterError(f"The adapter {place} was saved by a later version of wherein: update wherein to load it.")
    return dict(about)


def _about(method: str, vlm: FrozenVLM, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says: the layout's version, the method and its settings, and the model they are for."""
    return {
        "wherein": VERSION,
        "method": method,
        "base_model": vlm.name,
        "fingerprint": vlm.fingerprint,
        "base": facts(vlm),
        "config": dict(config),
    }


def _check(about: dict[str, Any]) -> None:
    """Raise KeyError or TypeError for an entry that is missing or of a wrong type."""
    for key in TEXTS:
        if not isinstance(about[key], str):
            raise TypeError(f"{key} is not a text")
    if not isinstance(about.get(DIGEST, ""), str):
        raise TypeError(f"{DIGEST} is not a text")
    for key in OBJECTS:
        if not isinstance(about[key], dict):
            raise TypeError(f"{key} is not an object")


def _weights(place: Path, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a folder whose configuration is `about`. Raises AdapterError where they are not what was saved."""
    path = place / WEIGHTS
    try:
        digest, weights = _digest(path), load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} cannot be read ({error}); it is damaged or incomplete.") from error
    if about.get(DIGEST, digest) != digest:
        raise AdapterError(
            f"{path} is not the file that {CONFIG} beside it was saved with, as its SHA-256 is another: it was damaged "
            "or exchanged, so copy or fetch the whole adapter again."
        )
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise AdapterError(
            f"{path} holds values that are not finite in {broken[0]}: its training fell apart, so train it again."
        )
    return weights


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _same_but_quantised(there: dict[str, Any], vlm: FrozenVLM) -> bool:
    """The model here is loaded in few bits, which changes its tensors, and is otherwise like the one there."""
    here = facts(vlm)
    return vlm.quantised and all(there.get(key) == here[key] for key in set(here) - {"parameters", "tensors"})


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Each fact that differs, with both values."""
    differing = [f"{key} {there.get(key)!r} there, {here[key]!r} here" for key in here if there.get(key) != here[key]]
    return "; ".join(differing) or "their sizes agree, but the names, shapes or values of their parameters differ"


def _not_fetched(error: Exception) -> str:
    """Why the Hub did not give an adapter, and what to do."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # loads an HTTP library

    if huggingface_hub.is_offline_mode():
        return "no such folder, not in the Hub's cache, and HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(error, RevisionNotFoundError):
        return "the repository is on the Hub, but it has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "no such folder, and no repository on the Hub that you may read (log in to a private one: hf auth login)"
    return f"no such folder, and it could not be fetched from the Hub ({_brief(error)})"


def _uploaded(folder: str, repo_id: str, private: bool, token: str | None) -> str:
    """The URL of the repository that now holds the adapter's files."""
    try:
        url = huggingface_hub.create_repo(repo_id, private=private, token=token, exist_ok=True)
        huggingface_hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            token=token,
            commit_message="Upload adapter",
        )
    except Exception as error:  # see `find`
        raise AdapterError(
            f"The adapter could not be uploaded to {repo_id} ({_brief(error)}): check the network, and that you may "
            "write there (hf auth login, or a token)."
        ) from error
    return str(url)


def _brief(error: Exception) -> str:
    """The beginning of what a library says, as part of a sentence."""
    return textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...").rstrip(".")


def _whole_card(card: str, method: str, model: str) -> str:
    """A model card with its metadata in front and the use at the end."""
    front = f"""---
library_name: wherein
base_model: {json.dumps(model)}
license: {LICENCE}
tags: [localisation, {method}]
---
"""
    return f"""{"" if card.startswith("---") else front}{card.rstrip()}

## Use

For the model `{model}` and the method `{method}` of wherein.

```python
from wherein import Locator
locator = Locator(model={json.dumps(model)}, adapter="{HERE}")
print(locator.locate("photo.jpg", "the cup").groundings)
```

```bash
wherein locate photo.jpg "the cup" --model {shlex.quote(model)} --adapter {HERE}
```
"""
