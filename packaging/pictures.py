#!/usr/bin/env python3
"""Draws what pyro really prints on a terminal, as SVG.

    packaging/pictures.py PYRO DIR      writes DIR/NAME.svg for each picture

Every command is run as it stands, in a home of its own that borrows the user's
kernels and images; its standard output is a terminal. What pyro says meanwhile on
standard error, and takes back, is not drawn. Ids and times differ at each run.
"""

import html
import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile

# Each picture: its commands. Those that begin with a blank are run and not drawn.
PICTURES = {
    "first-run": [
        "pyro env list",
        "pyro run debian:12 -- git --version",
        "pyro run debian:12 -- uname -s -r",
        "pyro run debian:12 --shell 'id -un; ls /sys/class/net; exit 7'; echo \"exit code $?\"",
    ],
    "demo": ["pyro demo"],
    "workspace": [
        " mkdir app && echo broken > app/message.txt",
        "pyro workspace create debian:12 --seed-path app --name demo --id-only",
        "pyro workspace file edit demo message.txt --old broken --new fixed",
        "pyro workspace diff demo",
        "pyro workspace list",
        " pyro workspace delete demo",
    ],
}

COLUMNS = 100
CHARACTER, LINE, MARGIN, SIZE = 8.4, 19, 18, 14
BACKGROUND, FOREGROUND = "#16181d", "#d7dae0"
COLOURS = ["#5c6370", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0"]


def run(command: str, home: pathlib.Path, path: str) -> str:
    """What a command writes to a terminal as its standard output."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PYRO_HOME": str(home),
        "PATH": path,
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
    }
    child = subprocess.Popen(
        ["sh", "-c", command],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # The last writer is gone.
            break
        if not piece:
            break
        written += piece
    child.wait()
    os.close(ours)
    text = written.decode().replace("\r\n", "\n")
    return text.replace(f"{home}/cache", "~/.cache/pyro").rstrip("\n")


def spans(line: str) -> str:
    """A line with the escapes for colours as SVG."""
    drawn, style, column = "", {}, 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            for code in [int(number or 0) for number in part[2:-1].split(";")]:
                if code == 0:
                    style = {}
                elif code == 1:
                    style["font-weight"] = "bold"
                elif code == 2:
                    style["opacity"] = "0.6"
                elif 30 <= code <= 37 or 90 <= code <= 97:
                    style["fill"] = COLOURS[code % 10]
        elif part:
            given = "".join(f' {name}="{value}"' for name, value in style.items())
            at = MARGIN + column * CHARACTER
            drawn += f'<tspan x="{at:.1f}"{given}>{html.escape(part)}</tspan>'
            column += len(part)
    return drawn


def wrapped(line: str) -> list[str]:
    """As a terminal breaks a line; escapes take no room."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[[0-9;]*m|.", line):
        if not part.startswith("\x1b"):
            if column == COLUMNS:
                lines.append("")
                column = 0
            column += 1
        lines[-1] += part
    return lines


def draw(lines: list[str]) -> str:
    width = 2 * MARGIN + COLUMNS * CHARACTER
    height = 2 * MARGIN + len(lines) * LINE
    text = "\n".join(
        f'<text y="{MARGIN + LINE * (number + 0.75):.1f}" xml:space="preserve">{spans(line)}</text>'
        for number, line in enumerate(lines)
        if line
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" \
width="{width:.0f}" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" \
font-size="{SIZE}" fill="{FOREGROUND}">
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
{text}
</svg>
"""


def main(pyro: pathlib.Path, out: pathlib.Path) -> None:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = f"{pyro.resolve().parent}:{os.environ['PATH']}"
    out.mkdir(parents=True, exist_ok=True)
    for name, commands in PICTURES.items():
        with tempfile.TemporaryDirectory(prefix="pyro-pictures-") as place:
            home = pathlib.Path(place)
            (home / "cache").symlink_to(cache / "pyro")
            lines = []
            for command in commands:
                said = run(command, home, path)
                if command.startswith(" "):
                    continue
                lines.append(f"\x1b[32m$\x1b[0m \x1b[1m{command}\x1b[0m")
                lines += [part for line in said.split("\n") for part in wrapped(line)]
            (out / f"{name}.svg").write_text(draw(lines))
        print(out / f"{name}.svg")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: packaging/pictures.py PYRO DIR")
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
