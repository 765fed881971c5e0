"""Make the PDF of the book: ``make pdf``.

Sphinx writes LaTeX, and latexmk runs XeLaTeX on it. LaTeX ends well in cases that a reader sees: a character that the
font does not have is left out, and a line that does not fit runs into the margin. So this command reads the log, and
fails on both. Two runs on the same text give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAME = "tvm-deep-dive"

#: Debian's packages that hold what XeLaTeX needs here.
DEBIAN = (
    "latexmk",
    "texlive-xetex",
    "texlive-latex-extra",
    "texlive-fonts-recommended",
    "texlive-lang-chinese",
    "fonts-linuxlibertine",
    "fonts-dejavu",
)
FONTS = ("Linux Libertine O", "Linux Biolinum O", "DejaVu Sans Mono")
#: A line may be this much too wide, in points, before somebody sees it.
OVERFULL_PT = 5.0

MISSING = re.compile(r"Missing character: There is no (\S+)(?: \(U\+([0-9A-F]+)\))? in font ([^!;/]+)")
OVERFULL = re.compile(r"Overfull \\hbox \((\d+(?:\.\d+)?)pt too wide\) (?:in paragraph|detected|in alignment).*")
UNDEFINED = re.compile(r"LaTeX Warning: (?:Reference|Hyper reference|Citation) `([^']+)'.*undefined")


@dataclass(frozen=True)
class Log:
    """What a log of LaTeX says that a reader of the PDF would see.

    Attributes
    ----------
    missing
        Characters that are not in their font, each with the font.
    overfull
        Widths in points of the lines that stand out of the text by more than `OVERFULL_PT`, with LaTeX's words.
    undefined
        Labels that do not exist.
    """

    missing: tuple[tuple[str, str], ...]
    overfull: tuple[tuple[float, str], ...]
    undefined: tuple[str, ...]


def read_log(text: str) -> Log:
    """Find the problems in a log. LaTeX breaks lines after 79 characters unless ``max_print_line`` says otherwise."""
    missing = sorted({(match[1], match[3].strip()) for match in MISSING.finditer(text)})
    overfull = [(float(match[1]), match[0]) for match in OVERFULL.finditer(text)]
    return Log(
        missing=tuple(missing),
        overfull=tuple(item for item in overfull if item[0] > OVERFULL_PT),
        undefined=tuple(sorted({match[1] for match in UNDEFINED.finditer(text)})),
    )


def missing_tools() -> list[str]:
    """Programs and fonts that are needed and not there."""
    found = [tool for tool in ("latexmk", "xelatex", "fc-list") if shutil.which(tool) is None]
    if "fc-list" not in found:
        families = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True, check=False).stdout
        found += [f"the font {font}" for font in FONTS if font not in families]
    return found


def source_date() -> str:
    """Seconds since 1970 of the last commit, so that the same commit gives the same PDF; today's date without git."""
    if os.environ.get("SOURCE_DATE_EPOCH"):
        return os.environ["SOURCE_DATE_EPOCH"]
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(int((ROOT / "pyproject.toml").stat().st_mtime))


def build(edition: str) -> Path:
    """Make the PDF of an edition.

    Parameters
    ----------
    edition : str
        Language, ``"en"`` or one below ``book/locale``.

    Returns
    -------
    Path
        The PDF.

    Raises
    ------
    SystemExit
        Something is missing or wrong; the message says what, and what to do.
    """
    if lacking := missing_tools():
        raise SystemExit(
            f"pdf: this machine lacks {', '.join(lacking)}. On Debian and Ubuntu, as root:\n"
            f"    apt-get install --no-install-recommends {' '.join(DEBIAN)}"
        )
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": source_date(),
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "1000",
    }
    folder = ROOT / "_build/latex" / edition
    language = [] if edition == "en" else ["-D", f"language={edition}"]
    doctrees = ROOT / "_build/doctrees" / f"latex-{edition}"
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ".", "-b", "latex", "-t", "print"]
    done = subprocess.run(
        [*sphinx, "-d", str(doctrees), *language, "book", str(folder)], cwd=ROOT, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit("pdf: Sphinx could not write LaTeX; see the messages above")
    options = ["-xelatex", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error"]
    done = subprocess.run(
        ["latexmk", *options, f"{NAME}.tex"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    log = folder / f"{NAME}.log"
    if done.returncode:
        errors = re.findall(r"^(?:\S+\.tex:\d+: .*|! .*)$", done.stdout, re.M)
        raise SystemExit("\n".join(["pdf: XeLaTeX stopped", *errors[:5], f"The whole log: {log.relative_to(ROOT)}"]))
    _check(read_log(log.read_text(encoding="utf-8", errors="replace")), log)
    made = ROOT / "_build/pdf" / f"{NAME}-{edition}.pdf"
    made.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / f"{NAME}.pdf", made)
    return made


def _check(found: Log, log: Path) -> None:
    problems = [f"no character {char!r} in {font}" for char, font in found.missing]
    problems += [f"no label {label}" for label in found.undefined]
    problems += [f"a line is {width:.0f} pt too wide: {text}" for width, text in found.overfull]
    if problems:
        more = [f"… {len(problems) - 30} more"] if len(problems) > 30 else []
        lines = ["pdf: the PDF would have these faults:", *problems[:30], *more, f"Log: {log.relative_to(ROOT)}"]
        raise SystemExit("\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="pdf", description=__doc__.split("\n")[0])
    parser.add_argument("--edition", default="en", help="language of the book (default: en)")
    made = build(parser.parse_args(argv).edition)
    print(f"The PDF is {made.relative_to(ROOT)} ({made.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
