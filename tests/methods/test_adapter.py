"""Adapters on disk and on the Hub: what goes in comes out, and what does not belong is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from torch import nn

import wherein
from wherein.errors import AdapterError, InputError
from wherein.methods import adapter

SHIPPED = Path(wherein.__file__).parent.glob("methods/*/weights/*/adapter_config.json")

CARD = "---\nlicense: mit\n---\n# A card\n"
ID = "user/pin-llava"


def save(folder: Path, vlm: Any, value: float = 1.0) -> Path:
    weights = {"weight": torch.full((2, 3), value), "bias": torch.zeros(2)}
    return adapter.save(folder, "pin", vlm, {"value": value}, weights, CARD)


def refused(folder: Path | str, vlm: Any, method: str = "pin") -> str:
    """The sentence with which an adapter is refused."""
    with pytest.raises(AdapterError) as caught:
        adapter.load(folder, method, vlm)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / adapter.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_round_trip(tiny_vlm: Any, tmp_path: Path) -> None:
    weights = {"weight": torch.randn(2, 3), "bias": torch.randn(4, 2).T}  # the second is not contiguous
    config = {"rows": 3, "text": "é", "scale": 0.1}
    folder = adapter.save(tmp_path / "deep" / "pin", "pin", tiny_vlm, config, weights, CARD)
    assert sorted(path.name for path in folder.iterdir()) == [adapter.CARD, adapter.CONFIG, adapter.WEIGHTS]
    settings, tensors = adapter.load(folder, "pin", tiny_vlm)
    assert settings == config
    assert all(torch.equal(tensors[name], weights[name]) for name in weights) and len(tensors) == len(weights)
    assert (folder / adapter.CARD).read_text().startswith(CARD)


def test_a_later_save_replaces_an_earlier_one(tiny_vlm: Any, tmp_path: Path) -> None:
    save(tmp_path, tiny_vlm, 1.0)
    save(tmp_path, tiny_vlm, 2.0)
    settings, tensors = adapter.load(tmp_path, "pin", tiny_vlm)
    assert settings == {"value": 2.0} and (tensors["weight"] == 2).all()


def test_another_method(tiny_vlm: Any, tmp_path: Path) -> None:
    save(tmp_path, tiny_vlm)
    assert "'pin'" in (sentence := refused(tmp_path, tiny_vlm, "lora")) and "'lora'" in sentence
    assert adapter.method_of(tmp_path) == "pin"


def test_the_name_of_a_model_is_no_reason_to_refuse(tiny_vlm: Any, tmp_path: Path) -> None:
    """A Hub id and a folder with the same model in it are one."""
    assert adapter.load(save(tmp_path, tiny_vlm), "pin", type(tiny_vlm)(name="/models/tiny"))[0] == {"value": 1.0}


def test_a_refusal_spells_out_what_differs(tiny_vlm: Any, tmp_path: Path) -> None:
    other = type(tiny_vlm)(name="other", grid=(2, 2), size=(64, 64))
    sentence = refused(save(tmp_path, tiny_vlm), other)
    assert "'tiny' there, 'other' here" in sentence
    assert sentence.endswith(": grid [3, 4] there, [2, 2] here; size [64, 48] there, [64, 64] here.")


def test_every_fact_is_compared(tiny_vlm: Any, tmp_path: Path) -> None:
    folder = edit(save(tmp_path, tiny_vlm), fingerprint="another's", base={})
    assert all(f"{fact} None there, " in refused(folder, tiny_vlm) for fact in adapter.facts(tiny_vlm))
    known = json.loads((save(tmp_path, tiny_vlm) / adapter.CONFIG).read_text())["base"]
    assert known == adapter.facts(tiny_vlm)
    assert known["class"] == "TinyVLM" and known["hidden_size"] == 32 and known["feature_dim"] == 8
    assert known["tensors"] == len(list(tiny_vlm.parameters()))
    assert known["parameters"] == sum(parameter.numel() for parameter in tiny_vlm.parameters())


def test_another_fine_tune_is_another_model(tiny_vlm: Any, tmp_path: Path) -> None:
    other = type(tiny_vlm)()
    other.language_model.model.layers[1].mlp.up_proj.weight[0, 3] *= 1.1
    assert "names, shapes or values" in refused(save(tmp_path, tiny_vlm), other)


def test_names_and_shapes_count(tiny_vlm: Any) -> None:
    renamed, padded = type(tiny_vlm)(), type(tiny_vlm)()
    renamed.connector = nn.Sequential(nn.Identity(), *renamed.connector)
    padded.connector[0].bias = nn.Parameter(torch.zeros(17))
    assert len({vlm.fingerprint for vlm in (tiny_vlm, renamed, padded)}) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_fingerprint_is_the_same_in_another_dtype(tiny_vlm: Any, dtype: torch.dtype) -> None:
    cast = type(tiny_vlm)()
    for part in (cast.connector, cast.language_model):
        part.to(dtype)
    assert next(cast.parameters()).dtype == dtype and cast.fingerprint == tiny_vlm.fingerprint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_fingerprint_is_the_same_on_another_device(tiny_vlm: Any) -> None:
    moved = type(tiny_vlm)()
    for part in (moved.connector, moved.language_model):
        part.to("cuda")
    assert moved.fingerprint == tiny_vlm.fingerprint


@pytest.mark.parametrize(("version", "said"), [(1, "save it again"), (3, "update wherein")])
def test_another_version(tiny_vlm: Any, tmp_path: Path, version: int, said: str) -> None:
    folder = edit(save(tmp_path, tiny_vlm), wherein=version)
    about = json.loads((folder / adapter.CONFIG).read_text())
    del about["base"]  # version 1 had none
    (folder / adapter.CONFIG).write_text(json.dumps(about))
    assert said in refused(folder, tiny_vlm)


@pytest.mark.parametrize("text", ["", "{", "[]", '"pin"', "null", "{}", '{"method": "pin"}', "\udcff"])
def test_damaged_settings(tiny_vlm: Any, tmp_path: Path, text: str) -> None:
    save(tmp_path, tiny_vlm)
    (tmp_path / adapter.CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert adapter.CONFIG in refused(tmp_path, tiny_vlm)


@pytest.mark.parametrize("key", ["wherein", "method", "base_model", "fingerprint", "base", "config"])
def test_a_missing_setting_is_named(tiny_vlm: Any, tmp_path: Path, key: str) -> None:
    save(tmp_path, tiny_vlm)
    about = json.loads((tmp_path / adapter.CONFIG).read_text())
    del about[key]
    (tmp_path / adapter.CONFIG).write_text(json.dumps(about))
    assert key in refused(tmp_path, tiny_vlm)


@pytest.mark.parametrize("key", ["wherein", "method", "base_model", "fingerprint", "base", "config"])
def test_a_setting_of_a_wrong_type_is_named(tiny_vlm: Any, tmp_path: Path, key: str) -> None:
    assert f"{key} is not a" in refused(edit(save(tmp_path, tiny_vlm), **{key: [1, 2]}), tiny_vlm)


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_damaged_weights(tiny_vlm: Any, tmp_path: Path, kept: int) -> None:
    path = save(tmp_path, tiny_vlm) / adapter.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert adapter.WEIGHTS in refused(tmp_path, tiny_vlm)


def flip(path: Path) -> None:
    """Change one bit of the last tensor: the file is as readable as it was."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_weights_is_told(tiny_vlm: Any, tmp_path: Path) -> None:
    flip(save(tmp_path, tiny_vlm) / adapter.WEIGHTS)
    assert "SHA-256" in (sentence := refused(tmp_path, tiny_vlm)) and "fetch the whole adapter again" in sentence
    with pytest.raises(AdapterError, match="SHA-256"):
        adapter.check(tmp_path)
    assert "SHA-256" in push_refused(tmp_path) and adapter.method_of(tmp_path) == "pin"
    assert f"{adapter.DIGEST} is not a text" in refused(edit(tmp_path, **{adapter.DIGEST: None}), tiny_vlm)


def test_an_adapter_from_before_hashes_is_loaded(tiny_vlm: Any, tmp_path: Path) -> None:
    about = json.loads((save(tmp_path, tiny_vlm) / adapter.CONFIG).read_text())
    assert len(about.pop("weights_sha256")) == 64
    (tmp_path / adapter.CONFIG).write_text(json.dumps(about))
    flip(tmp_path / adapter.WEIGHTS)
    assert adapter.load(tmp_path, "pin", tiny_vlm)[0] == {"value": 1.0} and adapter.check(tmp_path) == "pin"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite(tiny_vlm: Any, tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    """Under them every box would be no box."""
    weights = {"bias": torch.zeros(2, dtype=dtype), "weight": torch.full((2, 3), value, dtype=dtype)}
    adapter.save(tmp_path, "pin", tiny_vlm, {}, weights, CARD)
    assert "not finite in weight" in refused(tmp_path, tiny_vlm)


def test_missing_files(tiny_vlm: Any, tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path / "nowhere", tiny_vlm)
    assert adapter.CONFIG in refused(tmp_path, tiny_vlm)
    (save(tmp_path, tiny_vlm) / adapter.WEIGHTS).unlink()
    assert adapter.WEIGHTS in refused(tmp_path, tiny_vlm)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(2, 3)},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)},
        {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)},
    ],
)
def test_weights_that_do_not_fit(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(AdapterError, match="do not fit") as caught:
        adapter.fill(nn.Linear(3, 2), weights, "there")
    assert "\n" not in str(caught.value)


def failing_after(times: int) -> Callable[[Any, Any], None]:
    """`os.replace` that works `times` times and then finds the disk full."""
    real, left = os.replace, [times]

    def replace(source: Any, target: Any) -> None:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        real(source, target)

    return replace


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("over_another", [False, True])
def test_a_save_that_fails_leaves_nothing_half_written(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, over_another: bool
) -> None:
    """What is there after it is refused, or it is whole: never new weights under old settings."""
    if over_another:
        save(tmp_path, tiny_vlm, 1.0)
    monkeypatch.setattr(os, "replace", failing_after(times))
    with pytest.raises(InputError, match="No space left"):
        save(tmp_path, tiny_vlm, 2.0)
    monkeypatch.undo()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    refused(tmp_path, tiny_vlm)
    save(tmp_path, tiny_vlm, 3.0)  # and the next save heals it
    assert adapter.load(tmp_path, "pin", tiny_vlm)[0] == {"value": 3.0}


def test_a_save_that_cannot_write_leaves_the_old_adapter(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, tiny_vlm, 1.0)

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(adapter, "save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save(tmp_path, tiny_vlm, 2.0)
    assert adapter.load(tmp_path, "pin", tiny_vlm)[0] == {"value": 1.0}


def test_the_card_says_how_to_use_it(tiny_vlm: Any, tmp_path: Path) -> None:
    text = (save(tmp_path, tiny_vlm) / adapter.CARD).read_text()
    assert text.count("license:") == 1
    assert f'Locator(model="tiny", adapter="{adapter.HERE}")' in text
    assert f"--model tiny --adapter {adapter.HERE}\n" in text


def test_a_card_without_metadata_is_given_them(tiny_vlm: Any, tmp_path: Path) -> None:
    folder = adapter.save(tmp_path, "lora", type(tiny_vlm)(name="a b: c"), {}, {}, "# Mine\n")
    front, body = (folder / adapter.CARD).read_text().removeprefix("---\n").split("---\n", 1)
    assert front.splitlines() == [
        "library_name: wherein",
        'base_model: "a b: c"',
        "license: apache-2.0",
        "tags: [localisation, lora]",
    ]
    assert body.startswith("# Mine\n") and "--model 'a b: c' " in body and "`lora`" in body


class Hub:
    """Stands for the Hub's client: remembers what it was asked, and answers with a folder or an error."""

    def __init__(self, patch: pytest.MonkeyPatch, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.sent: dict[str, bytes] = {}
        for name in ("snapshot_download", "create_repo", "upload_folder"):
            patch.setattr(huggingface_hub, name, getattr(self, name))
        patch.setattr(huggingface_hub, "is_offline_mode", lambda: False)

    def _answered(self, name: str, repo_id: str, more: dict[str, Any]) -> str:
        self.asked.append((name, repo_id, more))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)

    def snapshot_download(self, repo_id: str, **more: Any) -> str:
        return self._answered("snapshot", repo_id, more)

    def create_repo(self, repo_id: str, **more: Any) -> huggingface_hub.RepoUrl:
        self._answered("create", repo_id, more)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: str, **more: Any) -> None:
        self._answered("upload", repo_id, more)
        self.sent = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


def http_error(kind: Any, text: str = "404 Client Error.\n\nRepository Not Found.") -> Any:
    return kind(text, response=Mock(headers={}))


@pytest.mark.parametrize(
    ("name", "revision"), [(ID, None), (f"{ID}@v2", "v2"), (f"{ID}@refs/pr/1", "refs/pr/1"), ("0x.u-1/_a.b", None)]
)
def test_an_adapter_from_the_hub(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, revision: str | None
) -> None:
    """Only the three files of an adapter are asked for."""
    hub = Hub(monkeypatch, save(tmp_path / "cache", tiny_vlm))
    assert adapter.load(name, "pin", tiny_vlm)[0] == {"value": 1.0}
    assert adapter.method_of(name) == "pin"
    wanted = {"revision": revision, "allow_patterns": ["adapter_config.json", "adapter_model.safetensors", "README.md"]}
    assert hub.asked == [("snapshot", name.partition("@")[0], wanted)] * 2


def test_a_folder_comes_before_the_hub(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "user" / "pin-llava", tiny_vlm)
    assert adapter.find(ID) == Path(ID) and hub.asked == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "./x",
        "../x",
        "x/..",
        "x/y/z",
        "/x",
        "/x/y",
        "~/x",
        "x",
        "x/",
        "x\\y",
        "x/y@",
        "x/.y",
        "-x/y",
        "é/y",
        "x/\0",
    ]
    + [Path("x/y")],
)
def test_what_can_only_be_a_path_is_never_sent_to_the_hub(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path
) -> None:
    hub = Hub(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert adapter.CONFIG in refused(name, tiny_vlm)
    assert hub.asked == []


def test_a_file_is_no_adapter(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, tmp_path)
    monkeypatch.chdir(save(tmp_path / "user", tiny_vlm).parent)
    assert "folder" in refused(f"user/{adapter.CONFIG}", tiny_vlm) and hub.asked == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http_error(RepositoryNotFoundError), "no repository"),
        (http_error(GatedRepoError), "hf auth login"),
        (http_error(RevisionNotFoundError), "no such revision"),
        (OSError("No route to host.\nTry again."), "(No route to host. Try again)"),
        (RuntimeError(), "(RuntimeError)"),
    ],
)
def test_what_the_hub_does_not_give(
    tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    Hub(monkeypatch, error)
    sentence = refused(f"{ID}@v2", tiny_vlm)
    assert sentence.startswith(f"No adapter at '{ID}@v2': ") and said in sentence


def test_a_repository_without_an_adapter(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, tmp_path / "nothing of it was fetched")
    assert adapter.CONFIG in refused(ID, tiny_vlm)


def test_offline_nothing_is_waited_for(tiny_vlm: Any) -> None:
    """With the true client; the tests run with HF_HUB_OFFLINE."""
    assert "HF_HUB_OFFLINE" in refused("wherein-tests/no-such-adapter", tiny_vlm)


def test_push(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three files go up and nothing else; the card then calls the adapter by its id."""
    hub, folder = Hub(monkeypatch, tmp_path), save(tmp_path / "pin", tiny_vlm)
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert adapter.push_to_hub(folder, ID, private=True, token="secret") == f"https://huggingface.co/{ID}"
    (_, _, made), (_, _, uploaded) = hub.asked
    assert made == {"private": True, "token": "secret", "exist_ok": True}
    assert uploaded["allow_patterns"] == list(adapter.FILES) and uploaded["token"] == "secret"
    assert set(hub.sent) == set(adapter.FILES)
    assert all(hub.sent[name] == before[name] for name in (adapter.CONFIG, adapter.WEIGHTS))
    card = hub.sent[adapter.CARD].decode()
    assert f'adapter="{ID}")' in card and f"--adapter {ID}\n" in card and adapter.HERE not in card
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def push_refused(folder: Path, repo_id: str = ID) -> str:
    """The sentence with which an upload is refused."""
    with pytest.raises(AdapterError) as caught:
        adapter.push_to_hub(folder, repo_id)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


def test_nothing_unsound_is_uploaded(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, folder = Hub(monkeypatch, tmp_path), save(tmp_path / "pin", tiny_vlm)
    for repo_id in ("pin", "./pin", "user/pin@v2", "a/b/c", ""):
        assert "user/name" in push_refused(folder, repo_id)
    for name in adapter.FILES:
        broken = shutil.copytree(folder, tmp_path / name)
        (broken / name).unlink()
        assert f"{name} not found" in push_refused(broken)
    (folder / adapter.WEIGHTS).write_bytes(b"no tensors")
    assert adapter.WEIGHTS in push_refused(folder)
    assert adapter.CONFIG in push_refused(edit(folder, config=None))
    assert "and" in push_refused(tmp_path / "nowhere") and hub.asked == []


def test_an_upload_that_the_hub_refuses(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, ValueError("Invalid metadata in README.md.\n- base_model"))
    assert "(Invalid metadata in README.md. - base_model)" in push_refused(save(tmp_path, tiny_vlm))


def test_offline_nothing_is_uploaded(tiny_vlm: Any, tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE" in push_refused(save(tmp_path, tiny_vlm))


def test_an_adapter_fits_its_model_in_few_bits(
    tiny_vlm: Any, save_pin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantisation changes every tensor of the language model: what is left to compare has to agree."""
    folder = save_pin()
    other = type(tiny_vlm)()
    other.language_model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False
    )
    assert other.quantised and other.fingerprint != tiny_vlm.fingerprint
    adapter.load(folder, "pin", other)
    other.feature_dim += 1
    with pytest.raises(AdapterError, match="feature_dim"):
        adapter.load(folder, "pin", other)


@pytest.mark.parametrize("config", sorted(SHIPPED), ids=lambda path: path.parts[-4])
def test_what_ships_is_what_was_saved(config: Path) -> None:
    weights = config.with_name("adapter_model.safetensors").read_bytes()
    assert json.loads(config.read_text())["weights_sha256"] == hashlib.sha256(weights).hexdigest()
