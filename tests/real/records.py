"""The records of the real-input run: data from outside of this project.

They are the stanzas of every Debian package index that `apt-get update` left on this machine; where that is
fewer than RECORDS_MIN, every named character of the Unicode character database, from a pinned package.
VATN_REAL_INPUT=debian or =unicode chooses one of them; otherwise the first that is there is taken.

    python records.py       says what there is
"""

import os
import pathlib
import re
import subprocess
import sys

RECORDS_MIN = 50_000
LISTS = pathlib.Path("/var/lib/apt/lists")
APT_HELPER = "/usr/lib/apt/apt-helper"

# From PyPI, Apache-2.0; the data is the Unicode Consortium's (Unicode License v3).
PACKAGE, PACKAGE_VERSION, PACKAGE_RECORDS = "unicodedata2", "18.0.0", 172_808
PACKAGE_HOME = pathlib.Path(__file__).parents[2] / "target" / "real-input" / f"{PACKAGE}-{PACKAGE_VERSION}"


def load():
    """(where they are from, {key: fields})."""
    wanted = os.environ.get("VATN_REAL_INPUT", "")
    if wanted not in ("", "debian", "unicode"):
        raise SystemExit(f"VATN_REAL_INPUT={wanted}: it is debian or unicode")
    if wanted != "unicode":
        indexes = debian_indexes()
        records = {key: fields for index in indexes for key, fields in debian_records(index)}
        if len(records) >= RECORDS_MIN:
            return f"{len(indexes)} Debian package indexes", records
        if wanted == "debian":
            raise SystemExit(f"{len(records)} stanzas in {LISTS}, fewer than {RECORDS_MIN}: run `apt-get update`")
    return f"{PACKAGE} {PACKAGE_VERSION}", unicode_records()


def debian_indexes():
    """The indexes of binary packages, whatever they are compressed with."""
    is_index = re.compile(r"_Packages(\.\w+)?$").search
    return sorted(path for path in LISTS.glob("*_Packages*") if is_index(path.name))


def debian_records(index):
    """The stanzas of an index.

    A key is the package's name, `@` and the index's name, since a package may be in several indexes. An
    index may name a package more than once (another version): the second is `…#2`, and so on.
    """
    command = [APT_HELPER, "cat-file", str(index)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    index_name = index.name.partition("_Packages")[0]
    count, times = 0, {}
    for stanza in text.split("\n\n"):
        if not stanza.strip():
            continue
        fields = debian_fields(stanza)
        name = fields["Package"]
        times[name] = times.get(name, 0) + 1
        again = f"#{times[name]}" if times[name] > 1 else ""
        yield f"{name}@{index_name}{again}", fields
        count += 1
    assert count == len(re.findall(r"^Package:", text, re.MULTILINE)), f"{index}: stanzas were lost"


def debian_fields(stanza):
    """`Field: value` lines; a line that begins with a space continues the value before it."""
    fields = {}
    for line in stanza.strip("\n").split("\n"):
        if line[0] in " \t":
            fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def unicode_records():
    """Every character that has a name, keyed by its code point."""
    if not PACKAGE_HOME.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        fetched = PACKAGE_HOME.with_name(f"{PACKAGE_HOME.name}.{os.getpid()}")
        command = [*install, "--target", str(fetched), f"{PACKAGE}=={PACKAGE_VERSION}"]
        if subprocess.run(command).returncode != 0:
            raise SystemExit(f"no real records: no Debian package lists with {RECORDS_MIN} stanzas in {LISTS} (run "
                             f"`apt-get update`), and {PACKAGE} {PACKAGE_VERSION} could not be installed from PyPI")
        fetched.rename(PACKAGE_HOME)
    sys.path.insert(0, str(PACKAGE_HOME))
    import unicodedata2 as unicode
    records = {}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        name = unicode.name(character, None)
        if name is not None:
            records[f"U+{code:04X}"] = {
                "Name": name,
                "Character": character,
                "Category": unicode.category(character),
                "Bidirectional": unicode.bidirectional(character),
                "Combining": unicode.combining(character),
                "Decomposition": unicode.decomposition(character),
                "East-Asian-Width": unicode.east_asian_width(character),
                "Mirrored": bool(unicode.mirrored(character)),
                "Numeric": unicode.numeric(character, None),
            }
    assert len(records) == PACKAGE_RECORDS, f"{PACKAGE} {PACKAGE_VERSION} has {len(records)} named characters"
    return records


if __name__ == "__main__":
    source, found = load()
    key = next(iter(found))
    print(f"{len(found)} records from {source}; the first is {key}: {found[key]}")
