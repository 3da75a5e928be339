"""Build KServe's own objects from a manifest; a field that they do not have, or of another type, is an error.

    python inference_service.py MANIFEST

A process of its own, because KServe and tritonclient cannot be imported together.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client
import yaml

PLAIN = {"str": str, "int": int, "bool": bool, "object": object}


def build(data: Any, kind: str) -> Any:
    """`data` as the type that is called `kind` in KServe's models, or in Kubernetes'."""
    if items := re.fullmatch(r"list\[(.*)\]", kind, re.IGNORECASE):
        return [build(item, items[1]) for item in data]
    if re.match(r"dict\b", kind, re.IGNORECASE):
        return {str(key): value for key, value in data.items()}
    if kind in PLAIN:
        if not isinstance(data, PLAIN[kind]):
            raise TypeError(f"{data!r} must be {kind}")
        return data
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind)
    names = {key: name for name, key in model.attribute_map.items()}
    if unknown := set(data) - set(names):
        raise TypeError(f"{kind} must not have {unknown}")
    return model(**{names[key]: build(value, model.openapi_types[names[key]]) for key, value in data.items()})


if __name__ == "__main__":
    print(build(yaml.safe_load(Path(sys.argv[1]).read_text()), "V1beta1InferenceService").spec.predictor.scale_metric)
