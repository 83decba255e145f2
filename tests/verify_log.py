#!/usr/bin/env python3
"""Verifies an exported fieldbook log: a second opinion, written from docs/log-format.md alone.

    python3 tests/verify_log.py FILE.log [--key NAME+ID+KEY]...

Prints `N entries, head HASH: ok`, or names the first bad entry and exits with 1. Needs only the standard library; if the
module `blake3` is installed, it is used for speed (set FIELDBOOK_PURE_BLAKE3=1 to use the one in this file all the same).

It checks what an unkeyed chain can show: the frame, places without gaps, a growing clock, every commitment and hash. By
that alone it cannot tell a log from one that was forged whole: compare the head with one that someone else knows, or name
the public key of the server (--key). Then it reads the signed notes of the log too, and says up to which entry a receipt
by that key goes (`anchored`), or a checkpoint of the device (`signed`). A note of another entry than the log has is
damage. It reads no other part of the meta part.
"""

import base64
import hashlib
import io
import json

import os
import struct
import sys

MAGIC_1, MAGIC_2 = b"fieldbook-log 1\n", b"fieldbook-log 2\n"
TOLD, ENTRY, JOINT, END = 0, 1, 2, 255
MARK, TOLD_MARK = b"\xfe\xff\xff\xff", b"\xff" * 4
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

# --- Ed25519: checking a signature (RFC 8032) ------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def point(encoded):
    """Returns a point in extended coordinates, or None."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def plus(one, other):
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % P, (one[1] + one[0]) * (other[1] + other[0]) % P
    c, d = 2 * one[3] * other[3] * D % P, 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number, one):
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = plus(total, one)
        one, number = plus(one, one), number >> 1
    return total


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key, text, signature):
    r, a = point(signature[:32]), point(key)
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or r is None or a is None or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + text).digest(), "little") % ORDER
    left, right = times(s, BASE), plus(r, times(h, a))
    same = (left[0] * right[2] - right[0] * left[2]) % P, (left[1] * right[2] - right[1] * left[2]) % P
    return same == (0, 0)


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
    """Returns the seq, the clock and the epoch."""
    reader = Reader(data)
    form, kind = reader.number("B", "the format"), reader.number("B", "the kind")
    if form == 1:
        raise Bad("it has format 1, made by a version before the first release; this program reads format 2")
    if form != 2:
        raise Bad(f"it has format {form}; this program reads format 2")
    if kind not in (1, 2, 3):
        raise Bad(f"its kind is {kind}")
    epoch = reader.take(16, "the epoch")
    seq, hlc = reader.number("Q", "the seq"), reader.number("Q", "the clock")
    reader.number("q", "the wall clock")
    actor = reader.take(reader.number("B", "the actor's length"), "the actor")
    reader.end("the header")
    try:
        actor.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("its actor is not UTF-8") from None
    return seq, hlc, epoch


PRESENT, ERASED, HIDDEN = 1, 0, 2


def commitment(reader):
    """Returns what the content commits to in place of an item, and whether the item is present, erased or hidden."""
    tag = reader.number("B", "an item's tag")
    if tag == ERASED:
        return reader.take(32, "a commitment"), tag
    if tag == HIDDEN:
        carried = reader.take(32, "a commitment")
        reader.block("what is told of an item")
        return carried, tag
    if tag != PRESENT:
        raise Bad(f"an item has the tag {tag}")
    salt = reader.take(16, "a salt")
    return blake3(ITEM + salt + block(reader.block("an item"))), tag


class Counts:
    """What a log has, what a bundle left out, and what stands in place of trimmed entries."""

    def __init__(self):
        self.erased = self.hidden = self.told = 0
        # The first place that a baseline lacks; the joint, as its place, its hash and its sealed hash; and what is named.
        self.gap, self.joint, self.named = None, None, []

    def end(self):
        """Raises Bad unless a baseline has its joint, and an entry behind it names it."""
        if self.gap is not None:
            raise Bad(f"entry {self.gap} is missing")
        if self.joint is not None and self.joint not in self.named:
            raise Bad("entries are missing at the beginning, and nothing in the log vouches for what stands in their place")


def number_in(data):
    """Returns the number with which the bytes begin, and its length."""
    size = {0xFB: 2, 0xFC: 4, 0xFD: 8}.get(data[0], 0)
    return (int.from_bytes(data[1:1 + size], "little") if size else data[0]), 1 + size


def check(stored, seq, previous, clock, notes, counts, is_bundle, content=None, joint=None):
    """Returns the place, the hash and the clock of an entry that is what it should be. `content` is the hash that a
    bundle has in place of an entry that it only tells of, and `joint` the hash with which a joint was sealed."""
    reader = Reader(stored)
    header, meta = reader.block("the header"), reader.block("the meta part")
    named, hlc, epoch = read_header(header)
    may_skip = named > seq > 1 and counts.joint is None
    if named != seq and not may_skip:
        raise Bad(f"it names entry {named} as its place")
    if hlc <= clock:
        raise Bad("its clock does not advance after the entry before")
    count = reader.number("I", "the number of items")
    if count > len(stored):
        raise Bad("it claims more items than bytes")
    items = [commitment(reader) for _ in range(count)]
    carried = reader.take(32, "the hash")
    reader.end("the hash")
    tags = [tag for _, tag in items]
    if not is_bundle and HIDDEN in tags:
        raise Bad("an item was left out, as in a bundle, and this is none")
    counts.erased, counts.hidden = counts.erased + tags.count(ERASED), counts.hidden + tags.count(HIDDEN)
    counts.told += content is not None
    if content is None:
        content = blake3(CONTENT + block(header) + block(meta) + struct.pack("<I", count) + b"".join(c for c, _ in items))
    if blake3(LINK + previous + content) != (joint or carried):
        raise Bad("its hash does not follow from its bytes and the entry before")
    if named != seq and counts.gap is None:
        counts.gap = seq
    if joint is not None:
        if counts.joint is not None:
            raise Bad("it is a second joint")
        counts.joint, counts.gap = (named, carried, joint), None
    if meta[:2] == b"\x02\x0b":
        upto, length = number_in(meta[2:])
        counts.named.append((upto, *(meta[2 + length + at:34 + length + at] for at in (0, 32))))
    if notes is not None:
        notes.look(named, epoch, carried, meta)
    return named, carried, hlc


# --- Signed notes ----------------------------------------------------------------------------------------------------

KINDS = {"fieldbook.receipt/v1": "anchored", "fieldbook.checkpoint/v1": "signed"}


class Key:
    """A public key that the caller trusts."""

    def __init__(self, text):
        self.name, _, rest = text.strip().partition("+")
        identity, _, encoded = rest.partition("+")
        try:
            whole = base64.b64decode(encoded, validate=True)
        except ValueError:
            whole = b""
        self.id = hashlib.sha256(self.name.encode() + b"\n" + whole).digest()[:4]
        if whole[:1] != b"\x01" or len(whole) != 33 or self.id.hex() != identity:
            raise ValueError(f"{text} is not an Ed25519 key of the form NAME+ID+KEY")
        self.bytes = whole[1:]

    def may_prove(self, level):
        return self.name.startswith("device/") == (level == "signed")


class Notes:
    """The signed notes of a log, and what they prove."""

    def __init__(self, keys):
        self.keys, self.device, self.entries, self.found = keys, None, {}, []

    def look(self, seq, epoch, carried, meta):
        self.entries[seq] = (epoch, carried)
        if seq == 1 and meta[:2] == b"\x02\x00":
            self.device = meta[2:18]
        if meta[:2] == b"\x02\x08":
            try:
                statement = self.statement(meta[2:])
            except (ValueError, IndexError):
                return  # Like a note of a later version, it proves nothing.
            if statement is not None:
                self.found.append((seq, *statement))

    @staticmethod
    def text(data):
        """Returns the text with which the bytes begin."""
        length, start = number_in(data)
        return data[start:start + length].decode("utf-8")

    @classmethod
    def statement(cls, data):
        """Returns what a note states, its text and its signatures, or None if its kind is not known."""
        text, _, lines = cls.text(data).rpartition("\n\n")
        text += "\n"
        parts = text.splitlines()
        level = KINDS.get(parts[0])
        if level is None:
            return None
        device, epoch = (bytes.fromhex(part.replace("-", "")) for part in parts[1].split("/"))
        signatures = [(name, base64.b64decode(blob)) for _, name, blob in (line.split(" ") for line in lines.splitlines())]
        return level, device, epoch, int(parts[2]), base64.b64decode(parts[3]), text, signatures

    def weigh(self, trimmed=0):
        """Returns the last entry of each level; raises Bad if a note is of another log. A note about an entry before the
        last trimmed one proves nothing."""
        upto = {"anchored": 0, "signed": 0}
        for seq, level, device, epoch, stated, digest, text, signatures in self.found:
            if stated < trimmed:
                continue
            if stated >= seq or device != self.device or self.entries.get(stated) != (epoch, digest):
                raise Bad(f"the note in entry {seq} states another entry {stated} than this log has")
            for key in (key for key in self.keys if key.may_prove(level)):
                blobs = [blob[4:] for name, blob in signatures if name == key.name and blob[:4] == key.id]
                if any(is_signed(key.bytes, text.encode(), blob) for blob in blobs):
                    upto[level] = max(upto[level], stated)
                elif blobs:
                    raise Bad(f"the note in entry {seq} names a key that was given, and is not signed by it")
        return upto


COVER_BYTES = 64 * 1024


def read_block(stream, most):
    prefix = stream.read(4)
    if len(prefix) < 4:
        raise Bad("the log is cut off")
    length = struct.unpack("<I", prefix)[0]
    if length > most:
        raise Bad(f"it claims {length} bytes")
    content = stream.read(length)
    if len(content) < length:
        raise Bad("the log is cut off")
    return content


def check_end(before, carried, cover, last, head):
    """Checks that a stream is the one that was written, and the whole log on its cover."""
    if blake3(before) != carried:
        raise Bad("the bytes differ from the sum at the end")
    try:
        cover = json.loads(cover)
        kind, first, to = cover["kind"], cover["from"], cover["to"]
    except (ValueError, KeyError, TypeError):
        raise Bad("its cover does not read") from None
    if kind not in ("log", "bundle") or first != 1:
        raise Bad("this is not a whole log")
    if to != last or cover.get("head", bytes(32).hex()) != head.hex():
        raise Bad("it does not end with the entry on its cover")


def is_of_bundle(cover):
    """Returns whether a cover names a bundle. It is believed at the end."""
    try:
        cover = json.loads(cover)
        return cover["kind"] == "bundle" and isinstance(cover["redaction"], dict)
    except (ValueError, KeyError, TypeError):
        return False


def verify(stream, notes=None):
    """Returns how many entries the log has, what was left out, and its head; raises Bad with the entry in the text."""
    seq, previous, clock, counts, is_bundle, entries = 1, bytes(32), -1, Counts(), False, 0
    # The hash at the end is over all bytes before it, so the whole stream is read. (A reader with an incremental BLAKE3
    # needs one entry at a time.)
    data = stream.read()
    stream, cover = io.BytesIO(data), None
    try:
        magic = stream.read(len(MAGIC_1))
        if magic not in (MAGIC_1, MAGIC_2):
            raise Bad("this is not an exported log: it begins with neither `fieldbook-log 1` nor `fieldbook-log 2`")
        if magic == MAGIC_2:
            cover = read_block(stream, COVER_BYTES)
            is_bundle = is_of_bundle(cover)
        while True:
            before = stream.tell()
            if cover is None and before == len(data):
                break
            stored = read_block(stream, ENTRY_BYTES + (cover is not None))
            content = joint = None
            if cover is None and stored[:4] == MARK:
                joint, stored = stored[4:36], stored[36:]
            if cover is not None:
                form, stored = stored[:1], stored[1:]
                if form == bytes([END]) and len(stored) == 32:
                    check_end(data[:before], stored, cover, seq - 1, previous)
                    counts.end()
                    if stream.read(1):
                        raise Bad("bytes stand after the end")
                    break
                if form == bytes([JOINT]) and len(stored) > 32:
                    joint, stored = stored[:32], stored[32:]
                    # What a bundle tells of a joint has both.
                    if stored[:4] == TOLD_MARK:
                        form, stored = bytes([TOLD]), stored[4:]
                if form == bytes([TOLD]) and is_bundle and len(stored) > 32:
                    content, stored = stored[:32], stored[32:]
                elif form not in (bytes([ENTRY]), bytes([JOINT])):
                    raise Bad("this program does not know this part of it")
            seq, previous, clock = check(stored, seq, previous, clock, notes, counts, is_bundle, content, joint)
            seq, entries = seq + 1, entries + 1
        if cover is None:
            counts.end()
    except Bad as bad:
        raise Bad(f"entry {seq} is damaged: {bad}") from None
    return entries, counts, previous


def main(arguments):
    files = arguments[:1]
    try:
        if len(arguments) % 2 != 1 or any(option != "--key" for option in arguments[1::2]):
            raise ValueError("usage: verify_log.py FILE.log [--key NAME+ID+KEY]...")
        notes = Notes([Key(text) for text in arguments[2::2]])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with open(files[0], "rb") as stream:
            entries, counts, head = verify(stream, notes if notes.keys else None)
        upto = notes.weigh(counts.joint[0] if counts.joint else 0)
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", file=sys.stderr)
        return 2
    except Bad as bad:
        print(bad)
        return 1
    if counts.erased:
        print(f"{counts.erased} erased items")
    if counts.hidden:
        print(f"{counts.hidden} items left out")
    if counts.told:
        print(f"{counts.told} entries claimed: only their places are proven")
    if counts.joint:
        print(f"entries up to {counts.joint[0]} were trimmed; a baseline stands in their place")
    for level, last in upto.items():
        if last:
            print(f"{level} up to entry {last}")
    print(f"{entries} entries, head {head.hex()}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
