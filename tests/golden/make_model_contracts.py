"""Write edgeft/models/contracts.json from the installed timm and torchvision.

python tests/golden/make_model_contracts.py
"""

import json
from pathlib import Path

from edgeft.core.digest import canonical_json
from edgeft.models.library_contracts import architectures, contract_of

TARGET = Path(__file__).parents[2] / "edgeft/models/contracts.json"


def table() -> dict[str, list[dict[str, object]]]:
    result = {}
    for library in ("timm", "torchvision"):
        groups: dict[str, list[str]] = {}
        for name in sorted(architectures(library)):
            contract = contract_of(library, name)
            if contract is not None:
                groups.setdefault(canonical_json(contract.to_json()), []).append(name)
        result[library] = [{"contract": json.loads(key), "names": names} for key, names in sorted(groups.items())]
    return result


if __name__ == "__main__":
    lines = [
        f'"{library}": [\n' + ",\n".join(json.dumps(group, sort_keys=True) for group in groups) + "\n]"
        for library, groups in table().items()
    ]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
