"""A label student on disk: arrays in NumPy's own format and one JSON file, never a pickle.

    student.json    everything but the arrays, and the digest of each of them; written last
    hashes.npy, idf.npy, steps.npy, bias.npy, weights.npy

Whatever is read is checked: type, shape, size and digest of each array, and that the numbers are
finite. The weights stay on disk, of which the operating system keeps in memory what is used.
"""

from __future__ import annotations

from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.label.closed import MAX_CHOICES, ClosedSet
from distill.label.model import LabelModel
from distill.label.reading import SystemFrame
from distill.label.vectors import Vocabulary
from store.errors import StudentError
from store.files.atomic import write_atomically
from store.jsontext import to_json

FILE = "student.json"
VERSION = 1
MAX_NGRAMS = 2**22
MAX_BYTES = 2**30  # of one array
MAX_JSON = 2**24

_TYPES: dict[str, np.dtype[Any]] = {
    "hashes": np.dtype("<u4"),
    "idf": np.dtype("<f4"),
    "steps": np.dtype("<f4"),
    "bias": np.dtype("<f4"),
    "weights": np.dtype("i1"),
}
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Header(BaseModel):
    """What student.json holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    kind: Literal["label", "json"]
    fields: list[str] = Field(min_length=1, max_length=MAX_CHOICES)
    choices: list[Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]]
    spellings: list[str]
    layout: int = Field(ge=0, le=7)
    prefix: str
    suffix: str
    unknown_idf: _Finite
    temperatures: list[Annotated[_Finite, Field(gt=0)]]
    min_score: list[_Finite]
    min_known: _Finite
    ngrams: int = Field(ge=1, le=MAX_NGRAMS)
    digests: dict[str, str]


def save(folder: Path, model: LabelModel) -> None:
    """Writes a student into this folder."""
    closed, vocabulary = model.closed, model.vocabulary
    arrays: dict[str, Any] = {
        "hashes": vocabulary.hashes,
        "idf": vocabulary.idf,
        "steps": model.steps,
        "bias": model.bias,
        "weights": model.weights,
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digests = {}
    for name, array in arrays.items():
        file = folder / f"{name}.npy"
        np.save(file, np.ascontiguousarray(array, dtype=_TYPES[name]), allow_pickle=False)
        file.chmod(0o600)
        digests[name] = digest_of(file)
    header = _Header(
        version=VERSION,
        unknown_idf=vocabulary.unknown_idf,
        temperatures=list(model.temperatures),
        min_score=list(model.min_score),
        min_known=model.min_known,
        ngrams=len(vocabulary.hashes),
        digests=digests,
        **asdict(closed),
        **asdict(model.frame),
    )
    write_atomically(folder / FILE, to_json(header.model_dump()))


def load(folder: Path) -> LabelModel:
    """The student in this folder. Raises StudentError when a file is missing or not as written."""
    try:
        if (folder / FILE).stat().st_size > MAX_JSON:
            raise ValueError("too large")
        header = _Header.model_validate_json((folder / FILE).read_bytes())
        fields, choices = len(header.fields), [len(own) for own in header.choices]
        each = (len(header.choices), len(header.temperatures), len(header.min_score))
        if set(each) != {fields}:
            raise ValueError("fields do not match")
        if header.kind == "label" and (fields != 1 or len(header.spellings) != choices[0]):
            raise ValueError("labels do not match")
        shapes: dict[str, tuple[int, ...]] = {
            "hashes": (header.ngrams,),
            "idf": (header.ngrams,),
            "steps": (header.ngrams,),
            "bias": (sum(choices),),
            "weights": (header.ngrams, sum(choices)),
        }
        arrays = {
            name: _array(folder / f"{name}.npy", _TYPES[name], shape, header.digests.get(name, ""))
            for name, shape in shapes.items()
        }
    except FileNotFoundError as error:
        raise StudentError(
            f"a file of the student is missing: {Path(error.filename).name}"
        ) from None
    except ValidationError:
        raise StudentError(f"the student is damaged: {FILE} is not as it was written") from None
    except (OSError, ValueError) as error:
        raise StudentError(f"the student is damaged: {error}") from None
    if (np.diff(arrays["hashes"].astype(np.int64)) <= 0).any():
        raise StudentError("the student is damaged: its n-grams are not in order")
    return LabelModel(
        closed=ClosedSet(
            header.kind,
            tuple(header.fields),
            tuple(map(tuple, header.choices)),
            tuple(header.spellings),
            header.layout,
        ),
        frame=SystemFrame(header.prefix, header.suffix),
        vocabulary=Vocabulary(arrays["hashes"], arrays["idf"], header.unknown_idf),
        weights=arrays["weights"],
        steps=arrays["steps"],
        bias=arrays["bias"],
        temperatures=tuple(header.temperatures),
        min_score=tuple(header.min_score),
        min_known=header.min_known,
    )


def _array(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...], digest: str) -> Any:
    """An array that is exactly this. Raises ValueError, or OSError."""
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.name} is too large")
    if digest_of(file) != digest:
        raise ValueError(f"{file.name} is not as it was written")
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{file.name} has another form")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{file.name} has numbers that are not finite")
    return array


def digest_of(file: Path) -> str:
    """The digest of a file, 32 hex digits."""
    digest = blake2b(digest_size=16)
    with file.open("rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest()
