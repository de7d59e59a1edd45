"""The `dct` codec: from a payload to coefficients (shardtool/FORMAT.md) and to samples (loader/PIXELS.md)."""

import math
import struct

LANES = 64
LOWEST = 1 << 15
# A component's streams by number: escape steps, places and highs, DC low and high, then masks and values alternately.
STEPS, PLACES, HIGHS, DC_LOW, DC_HIGH = range(5)
STREAMS = 21


class Violation(Exception):
    """A sentence of the page with MUST in it does not hold."""


def must(holds, text):
    if not holds:
        raise Violation(text)


def masks(u):
    return 5 + 2 * u


def values(u):
    return 6 + 2 * u


STORED = [STEPS, PLACES, *map(values, range(8))]


def signed(value, bits):
    """The integer that the lowest bits of a number are in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Table:
    """Frequencies of byte values, with what decoding looks up."""

    def __init__(self, frequencies):
        must(sum(frequencies) == 4096 and all(f < 4096 for f in frequencies), "frequencies do not sum to 4096")
        self.frequencies, self.starts, self.symbols = frequencies, [], []
        for symbol, frequency in enumerate(frequencies):
            self.starts.append(len(self.symbols))
            self.symbols += [symbol] * frequency


def read_tables(content):
    """The tables in the decompressed codec data."""
    must(512 <= len(content) <= 256 * 512 and len(content) % 512 == 0, f"{len(content)} bytes of rANS tables")
    return [Table(row) for row in struct.iter_unpack("<256H", content)]


class Run:
    """One rANS run."""

    def __init__(self, data):
        must(len(data) >= 4 * LANES, "the rANS run has no room for its states")
        must(len(data) % 2 == 0, "the rANS run ends inside a word")
        self.states = list(struct.unpack_from(f"<{LANES}I", data))
        must(all(LOWEST <= state < 1 << 31 for state in self.states), "a rANS state is out of range")
        self.words = iter(struct.unpack_from(f"<{len(data) // 2 - 2 * LANES}H", data, 4 * LANES))

    def stream(self, table, length):
        out = bytearray()
        for i in range(length):
            x = self.states[i % LANES]
            slot = x % 4096
            symbol = table.symbols[slot]
            x = table.frequencies[symbol] * (x // 4096) + slot - table.starts[symbol]
            if x < LOWEST:
                word = next(self.words, None)
                must(word is not None, "the rANS run ends where a word is due")
                x = 65536 * x + word
            self.states[i % LANES] = x
            out.append(symbol)
        return bytes(out)

    def finish(self):
        must(all(state == LOWEST for state in self.states), "the rANS run ends in other states")
        must(next(self.words, None) is None, "words are left in the rANS run")


class Head:
    """Takes fields from the front of a payload."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        size = struct.calcsize("<" + form)
        must(self.at + size <= len(self.data), "the payload ends in its head")
        fields = struct.unpack_from("<" + form, self.data, self.at)
        self.at += size
        return fields

    def byte(self):
        return self.take("B")[0]


class Component:
    """One component: its head, then its streams, then its coefficients in natural order, block by block."""

    def __init__(self, head, entropy, quantization_tables):
        factors = head.byte()
        self.h, self.v = factors >> 4, factors & 15
        must(1 <= self.h <= 4 and 1 <= self.v <= 4, f"sampling factors {self.h} x {self.v}")
        self.quantization = head.byte()
        must(self.quantization < quantization_tables, f"no quantization table {self.quantization}")
        self.detail = head.take("6B"), head.take("6B")
        self.lengths = dict(zip(STORED, head.take("10I")))
        self.tables = head.take(f"{STREAMS}B") if entropy == 1 else None
        self.streams = {}

    def lay_out(self, width, height, largest_h, largest_v):
        self.wide = math.ceil(math.ceil(width * self.h / largest_h) / 8)
        self.high = math.ceil(math.ceil(height * self.v / largest_v) / 8)
        blocks = self.wide * self.high
        self.lengths[HIGHS] = self.lengths[PLACES]
        for stream in [DC_LOW, DC_HIGH, *map(masks, range(8))]:
            self.lengths[stream] = blocks
        must(all(self.lengths[values(u)] <= 8 * blocks for u in range(8)), "more values than coefficients")
        must(self.lengths[PLACES] <= sum(self.lengths[values(u)] for u in range(8)), "more escapes than values")

    def unpack(self):
        """Streams to coefficients."""
        self.blocks = [[0] * 64 for _ in range(self.wide * self.high)]
        for u in range(8):
            stored = iter(self.streams[values(u)])
            for block, mask in zip(self.blocks, self.streams[masks(u)]):
                for v in range(8):
                    if mask >> v & 1:
                        value = next(stored, None)
                        must(value is not None, f"too few values of frequency {u}")
                        block[8 * v + u] = signed(value, 8)
            must(next(stored, None) is None, f"too many values of frequency {u}")
        self._escapes()
        self._dc()
        for block in self.blocks:
            for coefficient, step in zip(block, self.steps):
                must(abs(coefficient * step) <= 2047, f"coefficient {coefficient} with step {step}")

    def _escapes(self):
        steps, number, before = iter(self.streams[STEPS]), 0, set()
        for place, high in zip(self.streams[PLACES], self.streams[HIGHS]):
            while True:
                step = next(steps, None)
                must(step is not None, "too few escape steps")
                if step > 0:
                    before = set()
                number += step
                if step < 255:
                    break
            must(number < len(self.blocks), f"an escape in block {number} of {len(self.blocks)}")
            u, v = place >> 3 & 7, place & 7
            must((u, v) not in before, "two escapes of one coefficient")
            must(self.streams[masks(u)][number] >> v & 1, "an escape of a coefficient that is not stored")
            before.add((u, v))
            self.blocks[number][8 * v + u] += 256 * signed(high, 8)
        must(next(steps, None) is None, "too many escape steps")

    def _dc(self):
        for number, block in enumerate(self.blocks):
            d = 256 * self.streams[DC_HIGH][number] + self.streams[DC_LOW][number]
            difference = -(d + 1) // 2 if d % 2 else d // 2
            if number % self.wide:
                before = self.blocks[number - 1][0]
            elif number:
                before = self.blocks[number - self.wide][0]
            else:
                before = 0
            block[0] = signed(difference + before, 16)


class Image:
    """A decoded payload. `one_frame` is given bytes and what they are, and decompresses exactly one zstd frame."""

    def __init__(self, payload, width, height, tables, one_frame):
        head = Head(payload)
        self.entropy, self.colour, count = head.byte(), head.byte(), head.byte()
        must(self.entropy <= 1, f"entropy coding {self.entropy}")
        must(self.colour <= 2, f"colour {self.colour}")
        self.width, self.height = width, height
        components = 1 if self.colour == 0 else 3
        must(1 <= count <= components, f"{count} quantization tables")
        self.components = [Component(head, self.entropy, count) for _ in range(components)]
        quantization = []
        for _ in range(count):
            kind = head.byte()
            must(kind <= 1, f"quantization steps of kind {kind}")
            quantization.append(head.take("64H" if kind else "64B"))
        frames = head.take("9I") if self.entropy == 0 else None
        self.h = max(component.h for component in self.components)
        self.v = max(component.v for component in self.components)
        for component in self.components:
            component.steps = quantization[component.quantization]
            component.lay_out(width, height, self.h, self.v)
        coded = payload[head.at:]
        if self.entropy == 1:
            self._rans(coded, tables)
        else:
            self._zstd(coded, frames, one_frame)
        for component in self.components:
            component.unpack()

    def groups(self):
        """The streams of each group, as (component, number)."""
        yield [(component, stream) for component in self.components for stream in range(5)]
        for k in range(8):
            yield [(component, stream) for component in self.components
                   for u in range(8) if u * component.h // self.h == k for stream in (masks(u), values(u))]

    def _rans(self, coded, tables):
        must(tables is not None, "the shard has no rANS tables")
        run = Run(coded)
        for group in self.groups():
            for component, stream in group:
                must(component.tables[stream] < len(tables), f"no rANS table {component.tables[stream]}")
                table = tables[component.tables[stream]]
                component.streams[stream] = run.stream(table, component.lengths[stream])
        run.finish()

    def _zstd(self, coded, frames, one_frame):
        must(sum(frames) == len(coded), f"{len(coded)} bytes of frames, not {sum(frames)}")
        for number, (group, length) in enumerate(zip(self.groups(), frames)):
            size = sum(component.lengths[stream] for component, stream in group)
            content, at = one_frame(coded[:length], size, f"group {number}"), 0
            coded = coded[length:]
            for component, stream in group:
                component.streams[stream] = content[at:at + component.lengths[stream]]
                at += component.lengths[stream]

    def coefficients(self):
        """All that is stored, as bytes: for each component its factors, its steps and its blocks in natural order."""
        out = bytearray()
        for component in self.components:
            out += struct.pack("<2B64H", component.h, component.v, *component.steps)
            for block in component.blocks:
                out += struct.pack("<64h", *block)
        return bytes(out)

    def samples(self, side):
        """The samples of all components, rows of whole blocks: at full resolution, or as `fast` has it for a square."""
        out = bytearray()
        for component in self.components:
            n = scale(self.width * component.h / self.h, side, component.detail[0])
            m = scale(self.height * component.v / self.v, side, component.detail[1])
            for row in range(component.high):
                blocks = component.blocks[row * component.wide:][:component.wide]
                rendered = [render(block, component.steps, n, m) for block in blocks]
                for y in range(m):
                    for block in rendered:
                        out += bytes(block[y])
        return bytes(out)


def scale(extent, side, detail):
    """Samples that a block becomes in one direction."""
    for n in range(1, 8):
        if side is None:
            break
        r = extent * n / (8 * side)
        if r >= 1.2 and detail[max(n - 2, 1) - 1] + 2 * min(12.7 + 20 * (r - 1), 19) >= 92:
            return n
    return 8


def saturate(value):
    return max(-32768, min(32767, value))


def weight(n, sample, u):
    a = 1 / math.sqrt(8) if u == 0 else 0.5
    return round(2**15 * a * math.cos((2 * sample + 1) * u * math.pi / (2 * n)))


WEIGHTS = {n: [[weight(n, sample, u) for u in range(n)] for sample in range((n + 1) // 2)] for n in range(1, 9)}


def transform(x):
    """The inverse DCT of N coefficients."""
    n = len(x)
    y = [0] * n
    for sample, weights in enumerate(WEIGHTS[n]):
        halves = [0, 0]
        for u in range(n):
            halves[u % 2] = saturate(halves[u % 2] + saturate((x[u] * weights[u] + 2**14) >> 15))
        even, odd = halves
        y[n - 1 - sample] = saturate(even - odd)
        y[sample] = saturate(even + odd)
    return y


def render(block, steps, n, m):
    """A block as M rows of N samples."""
    rows = [transform([signed(block[8 * v + u] * signed(16 * steps[8 * v + u], 16), 16) for u in range(n)])
            for v in range(m)]
    columns = [transform([row[x] for row in rows]) for x in range(n)]
    return [[max(0, min(255, saturate(columns[x][y] + 2056) >> 4)) for x in range(n)] for y in range(m)]
