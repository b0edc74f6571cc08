"""What every object carries: its kind and its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zerohop.config.fields import Fields
from zerohop.config.names import Check, dns_label, label_key, label_value

# Written by the API server or by tools about the object, not about what it describes.
_BOOKKEEPING: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    namespace: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    complete: bool  # False: labels had errors, so that what refers to them cannot be judged


def read_metadata(fields: Fields, name_check: Check) -> Metadata | None:
    """An object's metadata; None, with errors, where it names no object."""
    metadata = fields.mapping("metadata", required=True)
    if metadata is None:
        return None
    name = metadata.text("name", name_check, required=True)
    namespace = metadata.text("namespace", dns_label)
    named = not metadata.has("namespace") or namespace is not None
    before = len(fields.problems.errors)
    labels = metadata.pairs("labels", label_key, label_value)
    complete = len(fields.problems.errors) == before
    annotations = metadata.pairs("annotations", label_key)
    metadata.accept(*_BOOKKEEPING)
    metadata.finish()
    if name is None or not named:
        return None
    return Metadata(namespace or "default", name, labels, annotations, complete)
