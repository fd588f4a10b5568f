"""What an ELF file (64 bits, little-endian) says of itself: the machine it is for, the libraries and versions it needs."""

# What must never happen here: a tool of the system that runs the tests; it may know nothing of the machine in question.

from __future__ import annotations

import struct
from pathlib import Path

#: e_machine (System V ABI, and what each processor's supplement adds)
MACHINES = {62: "x86_64", 183: "aarch64"}
#: Sections and tags: the generic ABI, chapters 4 and 5.
SHT_DYNAMIC, SHT_DYNSYM, SHT_GNU_VERNEED = 6, 11, 0x6FFFFFFE
DT_NEEDED, DT_RPATH, DT_RUNPATH = 1, 15, 29


class ELF:
    """A shared object, read."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not an ELF file of 64 bits, little-endian")
        self._data = data
        [number] = struct.unpack_from("<H", data, 18)
        self.machine = MACHINES.get(number, str(number))
        [start] = struct.unpack_from("<Q", data, 40)
        size, count = struct.unpack_from("<HH", data, 58)
        self._sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + index * size) for index in range(count)]
        self.needed: list[str] = []
        self.paths: list[str] = []
        for tag, value, strings in self._dynamic():
            if tag == DT_NEEDED:
                self.needed.append(self._string(strings, value))
            elif tag in (DT_RPATH, DT_RUNPATH):
                self.paths.append(self._string(strings, value))
        self.versions = self._versions()
        self.defined, self.undefined = self._symbols()

    @classmethod
    def at(cls, path: Path) -> ELF:
        """The one in this file."""
        return cls(path.read_bytes())

    def _string(self, strings: int, offset: int) -> str:
        at = strings + offset
        return self._data[at : self._data.index(b"\0", at)].decode()

    def _of_type(self, kind: int) -> list[tuple[int, ...]]:
        """Of each such section: where it is, its size, the size of an entry, where its strings are, its `info`."""
        found: list[tuple[int, ...]] = []
        for _, found_kind, _, _, offset, size, link, info, _, entry in self._sections:
            if found_kind == kind:
                found.append((offset, size, entry, self._sections[link][4], info))
        return found

    def _dynamic(self) -> list[tuple[int, int, int]]:
        entries = []
        for offset, size, entry, strings, _ in self._of_type(SHT_DYNAMIC):
            for at in range(offset, offset + size, entry):
                entries.append((*struct.unpack_from("<QQ", self._data, at), strings))
        return entries

    def _versions(self) -> dict[str, set[str]]:
        """By library, the versions of symbols that are asked of it."""
        wanted: dict[str, set[str]] = {}
        for offset, _, _, strings, count in self._of_type(SHT_GNU_VERNEED):
            for _ in range(count):
                _, versions, file, first, following = struct.unpack_from("<HHIII", self._data, offset)
                at = offset + first
                for _ in range(versions):
                    _, _, _, name, further = struct.unpack_from("<IHHII", self._data, at)
                    wanted.setdefault(self._string(strings, file), set()).add(self._string(strings, name))
                    at += further
                offset += following
        return wanted

    def _symbols(self) -> tuple[set[str], set[str]]:
        """Those that others see, and those that others must have. (Weak ones that nobody need have are left out.)"""
        defined, undefined = set(), set()
        for offset, size, entry, strings, _ in self._of_type(SHT_DYNSYM):
            for at in range(offset + entry, offset + size, entry):
                name, info, _, section = struct.unpack_from("<IBBH", self._data, at)
                if section:
                    defined.add(self._string(strings, name))
                elif info >> 4 == 1:
                    undefined.add(self._string(strings, name))
        return defined, undefined
