#!/usr/bin/env python3
"""Makes the Python wheel that carries pyro.

    packaging/wheel.py PYRO DIR     writes DIR/pyro_microvm-VERSION-....whl, and says so

There is no Python in it: `pip`, `pipx` and `uv` put its one program on PATH. It
is static, so one wheel serves glibc and musl. The version is the one that PYRO
says. The same pyro gives the same bytes.
"""

import base64
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# On PyPI `pyro` is another project.
NAME = "pyro-microvm"
TAGS = ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "musllinux_1_1_x86_64"]

# A zip file knows no earlier time.
TIME = (1980, 1, 1, 0, 0, 0)

METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: Disposable Linux computers in microVMs for coding agents: command line and MCP server
License-Expression: Apache-2.0
License-File: LICENSE
Classifier: Environment :: Console
Classifier: Operating System :: POSIX :: Linux
Description-Content-Type: text/markdown

{description}"""


def main(pyro: pathlib.Path, out: pathlib.Path) -> None:
    tree = pathlib.Path(__file__).resolve().parent.parent
    said = subprocess.run([pyro, "--version"], check=True, capture_output=True, text=True)
    version = said.stdout.split()[1]
    stem = f"{NAME.replace('-', '_')}-{version}"
    data, info = f"{stem}.data", f"{stem}.dist-info"
    wheel = out / f"{stem}-py3-none-{'.'.join(TAGS)}.whl"
    out.mkdir(parents=True, exist_ok=True)
    record = []

    with zipfile.ZipFile(wheel, "w") as archive:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(content)}\n")

        add(f"{data}/scripts/pyro", pyro.read_bytes(), 0o755)
        with tempfile.TemporaryDirectory() as scratch:
            share = pathlib.Path(scratch)
            subprocess.run([tree / "packaging/share.sh", pyro, share], check=True)
            for path in sorted(path for path in share.rglob("*") if path.is_file()):
                add(f"{data}/data/share/{path.relative_to(share)}", path.read_bytes())
        description = (tree / "README.md").read_text()
        metadata = METADATA.format(name=NAME, version=version, description=description)
        add(f"{info}/METADATA", metadata.encode())
        tags = "".join(f"Tag: py3-none-{tag}\n" for tag in TAGS)
        about = f"Wheel-Version: 1.0\nGenerator: pyro\nRoot-Is-Purelib: false\n{tags}"
        add(f"{info}/WHEEL", about.encode())
        add(f"{info}/licenses/LICENSE", (tree / "LICENSE").read_bytes())
        entry = zipfile.ZipInfo(f"{info}/RECORD", TIME)
        entry.external_attr = 0o100644 << 16
        archive.writestr(entry, "".join(record) + f"{info}/RECORD,,\n")
    print(wheel)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: packaging/wheel.py PYRO DIR")
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
