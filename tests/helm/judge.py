"""Judges a rendered chart: its values by the chart's own schema, its manifests by Kubernetes' schemas.

Standard input: {"schema", "values", "files": {name: text}, "versions": [of Kubernetes]}. Standard output: {"faults": [...],
"manifests": [...]}. Needs the packages of tests/python-packages.txt.
"""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, as Kubernetes does; the plain loader takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def main():
    asked = json.load(sys.stdin)
    faults, manifests = [], []
    jsonschema.Draft7Validator.check_schema(asked["schema"])
    for error in jsonschema.Draft7Validator(asked["schema"]).iter_errors(asked["values"]):
        faults.append(f"values.{'.'.join(map(str, error.absolute_path))}: {error.message}")
    for name, text in asked["files"].items():
        if not name.endswith(".yaml"):
            continue
        try:
            manifests += [manifest for manifest in yaml.load_all(text, Strict) if manifest]
        except yaml.YAMLError as error:
            faults.append(f"{name}: {error}")
    for version in asked["versions"]:
        for manifest in manifests:
            what = f"{version}: {manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                faults.append(f"{what}: {'.'.join(map(str, error.path))}: {error.message}")
            except Exception as error:  # A kind or a version that nobody knows.
                faults.append(f"{what}: {error!r}")
    json.dump({"faults": faults, "manifests": manifests}, sys.stdout)


main()
