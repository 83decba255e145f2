#!/usr/bin/env python3
"""Verifies an exported fieldbook log: a second opinion, written from docs/log-format.md alone.

    python3 tests/verify_log.py FILE.log

Prints `N entries, head HASH: ok`, or names the first bad entry and exits with 1. Needs only the standard library; if the
module `blake3` is installed, it is used for speed (set FIELDBOOK_PURE_BLAKE3=1 to use the one in this file all the same).

It checks what an unkeyed chain can show: the frame, places without gaps, a growing clock, every commitment and hash. It
does not read the meta part, and it cannot tell a log from one that was forged whole; compare the head with one that
someone else knows.
"""

import os
import struct
import sys

MAGIC = b"fieldbook-log 1\n"
ENTRY_BYTES = 64 * 1024 * 1024
ITEM, CONTENT, LINK = b"fieldbook/1/item\0", b"fieldbook/1/content\0", b"fieldbook/1/link\0"

# --- BLAKE3, unkeyed, 32 bytes of output -----------------------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF
# Which four words of the state each quarter round mixes: the columns, then the diagonals.
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def schedule():
    order = tuple(range(16))
    for _ in range(7):
        yield order
        order = tuple(order[place] for place in PERMUTATION)


ROUNDS = tuple(tuple(zip(QUARTERS, order[::2], order[1::2])) for order in schedule())


def compress(chaining, block, counter, length, flags):
    """Returns the eight words of the chaining value after one block of up to 64 bytes."""
    words = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*chaining, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for rounds in ROUNDS:
        for (a, b, c, d), x, y in rounds:
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + words[x]) & MASK
            vd ^= va
            vd = (vd >> 16 | vd << 16) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & MASK
            va = (va + vb + words[y]) & MASK
            vd ^= va
            vd = (vd >> 8 | vd << 24) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & MASK
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def chunk(data, counter, root):
    """Returns the chaining value of up to 1024 bytes."""
    chaining = IV
    blocks = range(0, max(len(data), 1), 64)
    for at in blocks:
        block = data[at:at + 64]
        flags = CHUNK_START if at == 0 else 0
        if at == blocks[-1]:
            flags |= CHUNK_END | root
        chaining = compress(chaining, block, counter, len(block), flags)
    return chaining


def tree(data, counter, root):
    """Returns the chaining value of data that begins with the chunk of that number: the left part is a full tree."""
    if len(data) <= 1024:
        return chunk(data, counter, root)
    left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
    pair = tree(data[:left], counter, 0) + tree(data[left:], counter + left // 1024, 0)
    return compress(IV, struct.pack("<16I", *pair), 0, 64, PARENT | root)


def blake3_pure(data):
    return struct.pack("<8I", *tree(data, 0, ROOT))


def choose_blake3():
    if not os.environ.get("FIELDBOOK_PURE_BLAKE3"):
        try:
            import blake3 as module
            return lambda data: module.blake3(data).digest()
        except ImportError:
            pass
    return blake3_pure


blake3 = choose_blake3()

# --- The log ---------------------------------------------------------------------------------------------------------


class Bad(Exception):
    """What is wrong with an entry."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length, what):
        if self.at + length > len(self.data):
            raise Bad(f"it ends within {what}")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, form, what):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))[0]

    def block(self, what):
        return self.take(self.number("I", f"the length of {what}"), what)

    def end(self, what):
        if self.at != len(self.data):
            raise Bad(f"bytes stand after {what}")


def block(data):
    return struct.pack("<I", len(data)) + data


def read_header(data):
    """Returns the seq and the clock."""
    reader = Reader(data)
    form, kind = reader.number("B", "the format"), reader.number("B", "the kind")
    if form == 1:
        raise Bad("it has format 1, made by a version before the first release; this program reads format 2")
    if form != 2:
        raise Bad(f"it has format {form}; this program reads format 2")
    if kind not in (1, 2, 3):
        raise Bad(f"its kind is {kind}")
    reader.take(16, "the epoch")
    seq, hlc = reader.number("Q", "the seq"), reader.number("Q", "the clock")
    reader.number("q", "the wall clock")
    actor = reader.take(reader.number("B", "the actor's length"), "the actor")
    reader.end("the header")
    try:
        actor.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("its actor is not UTF-8") from None
    return seq, hlc


def commitment(reader):
    """Returns what the content commits to in place of an item, and whether the item was erased."""
    tag = reader.number("B", "an item's tag")
    if tag == 0:
        return reader.take(32, "a commitment"), True
    if tag != 1:
        raise Bad(f"an item has the tag {tag}")
    salt = reader.take(16, "a salt")
    return blake3(ITEM + salt + block(reader.block("an item"))), False


def check(stored, seq, previous, clock):
    """Returns the hash, the clock and the number of erased items of an entry that is what it should be."""
    reader = Reader(stored)
    header, meta = reader.block("the header"), reader.block("the meta part")
    named, hlc = read_header(header)
    if named != seq:
        raise Bad(f"it names entry {named} as its place")
    if hlc <= clock:
        raise Bad("its clock does not advance after the entry before")
    count = reader.number("I", "the number of items")
    if count > len(stored):
        raise Bad("it claims more items than bytes")
    items = [commitment(reader) for _ in range(count)]
    carried = reader.take(32, "the hash")
    reader.end("the hash")
    content = blake3(CONTENT + block(header) + block(meta) + struct.pack("<I", count) + b"".join(c for c, _ in items))
    if blake3(LINK + previous + content) != carried:
        raise Bad("its hash does not follow from its bytes and the entry before")
    return carried, hlc, sum(erased for _, erased in items)


def verify(stream):
    """Returns how many entries and erased items the log has, and its head; raises Bad with the entry in the text."""
    seq, previous, clock, erased = 1, bytes(32), -1, 0
    try:
        if stream.read(len(MAGIC)) != MAGIC:
            raise Bad("this is not an exported log: it does not begin with `fieldbook-log 1`")
        while prefix := stream.read(4):
            if len(prefix) < 4:
                raise Bad("the log is cut off")
            length = struct.unpack("<I", prefix)[0]
            if length > ENTRY_BYTES:
                raise Bad(f"it claims {length} bytes")
            stored = stream.read(length)
            if len(stored) < length:
                raise Bad("the log is cut off")
            previous, clock, gone = check(stored, seq, previous, clock)
            seq, erased = seq + 1, erased + gone
    except Bad as bad:
        raise Bad(f"entry {seq} is damaged: {bad}") from None
    return seq - 1, erased, previous


def main(arguments):
    if len(arguments) != 1:
        print("usage: verify_log.py FILE.log", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as stream:
            entries, erased, head = verify(stream)
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", file=sys.stderr)
        return 2
    except Bad as bad:
        print(bad)
        return 1
    if erased:
        print(f"{erased} erased items")
    print(f"{entries} entries, head {head.hex()}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
