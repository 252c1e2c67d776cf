"""`wherein doctor`: what is installed, what is cached, what is missing, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata, version
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein.checkpoints import fast_in
from wherein.vlm import parts

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from rich.table import Table

LICENCES = {
    **{part.name: part.licence for part in parts.PARTS},
    "wherein's own weights": "Apache-2.0",
    "object bank: Fluent emoji": "MIT",
    "object bank: Open Clip Art": "public domain",
    "backgrounds: lomiri-wallpapers-16.04": "CC BY 4.0, CC0 1.0 (authors: wherein/synth/bank/NOTICE.md)",
    "example photographs": "CC0 1.0, public domain (wherein/examples/LICENSES.md)",
}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Also ask the Hub whether it answers (uses the network).")] = False,
) -> None:
    """Say what is installed, cached and missing. Exits with 0 if the default model runs offline, else with 1."""
    found = report(hub)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    raise typer.Exit(0 if found["ok"] else 1)


def report(hub: bool = False) -> dict[str, Any]:
    """Everything `wherein doctor` knows, ready for JSON; `problems` holds one sentence for each thing to mend.

    The network is used only with `hub`, whose answer is then true or false instead of null.
    """
    core, extras = _requirements()
    cache = _cache()
    problems = [*_package_problems(core), *_weight_problems(cache), *_torchvision_problems()]
    return {
        "schema": 1,
        "ok": not problems,
        "problems": problems,
        "versions": {"python": sys.version.split()[0], "wherein": _version("wherein")}
        | {requirement.name: _version(requirement.name) for requirement in core},
        "devices": _devices(),
        "cache": cache,
        "extras": {extra: _extra(extra, requirements) for extra, requirements in extras.items()},
        "hub": _hub_answers() if hub else None,
        "licences": LICENCES,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What wherein's own metadata asks for: always, and by extra."""
    from packaging.requirements import Requirement

    own = metadata("wherein")
    every = [Requirement(line) for line in own.get_all("Requires-Dist") or []]
    core = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    extras = {
        extra: [one for one in every if one not in core and one.marker and one.marker.evaluate({"extra": extra})]
        for extra in own.get_all("Provides-Extra") or []
    }
    return core, extras


def _extra(extra: str, requirements: list[Requirement]) -> dict[str, Any]:
    """Which packages of an extra are missing, and the command that installs them."""
    missing = [one.name for one in requirements if _version(one.name) is None]
    return {"missing": missing, "install": f'pip install "wherein[{extra}]"'}


def _package_problems(core: list[Requirement]) -> list[str]:
    problems = []
    for one in core:
        found = _version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            wanted = f"{one.name}{one.specifier}"
            problems.append(f'{wanted} is needed but {found or "nothing"} is installed: run `pip install "{wanted}"`.')
    return problems


def _cache() -> dict[str, Any]:
    """Where the cache is, its size in bytes, and the state of each base part: verified, missing or damaged."""
    folder = parts.cache_dir()
    return {
        "folder": str(folder),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "parts": [
            {"name": part.name, "file": part.file, "wheel": part.requirement, "state": _state(part)}
            for part in parts.PARTS
        ],
    }


def _state(part: parts.Part) -> str:
    if parts.cached(part) is not None:
        return "verified"
    return "damaged" if (parts.cache_dir() / part.file).exists() else "missing"


def _weight_problems(cache: dict[str, Any]) -> list[str]:
    problems = [
        f"The {part['name']} is {part['state']} in the cache: the first `wherein locate` with the network in reach "
        "fetches it."
        for part in cache["parts"]
        if part["state"] != "verified"
    ]
    if not (files("wherein") / "vlm" / "weights" / "default.safetensors").is_file():
        problems.append("This installation holds no trained weights of the default model: reinstall wherein.")
    return problems


def _torchvision_problems() -> list[str]:
    """A torchvision that cannot be imported; tried in another process, because the attempt spoils this one."""
    if find_spec("torchvision") is None:
        return []
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if done.returncode == 0:
        return []
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return [
        f"torchvision {_version('torchvision')} is installed but cannot be imported beside this torch ({reason}), and "
        "its mere presence breaks the image processors of transformers: run `pip uninstall torchvision`."
    ]


def _devices() -> dict[str, Any]:
    """CPU threads, whether this torch is fast in bfloat16 on it, and the name of each CUDA device."""
    if find_spec("torch") is None:
        return {}
    import torch

    return {
        "cpu_threads": torch.get_num_threads(),
        "cpu_bf16": fast_in(torch.bfloat16, "cpu"),
        "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _hub_answers() -> bool:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5):
            return True
    except HTTPError:
        return True  # an answer is an answer, whatever its status
    except OSError:
        return False


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    devices = {name: ", ".join(value) if isinstance(value, list) else value for name, value in found["devices"].items()}
    console.print(_table("Versions", found["versions"]), _table("Devices", devices))
    cache = found["cache"]
    place = {"folder": cache["folder"], "size": f"{cache['bytes'] / 1e6:.0f} MB"}
    console.print(_table("Cache", place | {part["name"]: part["state"] for part in cache["parts"]}))
    extras = {
        extra: f"missing {', '.join(state['missing'])}: {state['install']}" if state["missing"] else "complete"
        for extra, state in found["extras"].items()
    }
    console.print(_table("Extras", extras), _table("Licences of weights and data", found["licences"]))
    if found["hub"] is not None:
        console.print(f"The Hub {'answers' if found['hub'] else 'does not answer'}.")
    for problem in found["problems"]:
        console.print(f"- {problem}", markup=False, soft_wrap=True)
    if found["ok"]:
        console.print("The default model runs offline.")


def _table(title: str, rows: Mapping[str, object]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(escape(name), "-" if value in (None, "") else escape(str(value)))
    return table
