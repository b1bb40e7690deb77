"""Vector instructions that kernels are made of, emitted through Numba's LLVM.

No loop that a compiler vectorises by itself keeps a whole tile of sums in registers, so `matrix.py` says which
register holds what. The sizes of tiles follow from the processor's registers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

INT32, INT64 = ir.IntType(32), ir.IntType(64)


def _machine() -> tuple[int, int, bool]:
    """Bytes of a vector register, rows of a tile, and whether multiply-adds are fused."""
    chosen = getattr(config, "CPU_FEATURES", None)  # the user may have told Numba which to use
    if chosen is not None:
        features = {name[1:] for name in chosen.split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    if "avx512f" in features:
        return 64, 14, True  # 32 registers: 28 sums, 2 columns, 1 broadcast
    if "avx2" in features and "fma" in features:
        return 32, 6, True  # 16 registers: 12 sums, 2 columns, 1 broadcast
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 16, 12, True
    return 16, 4, False


VECTOR_BYTES, ROWS, FUSED = _machine()
PANEL_BYTES = 2 * VECTOR_BYTES
DEPTH = 256  # numbers of a left row that are multiplied before the sums are added to the output
STRIDE = DEPTH + 16  # from one row of a left tile to the next: an odd number of cache lines
COMING = 32  # rows of the right matrix that a product asks for before it comes to them
PRESENT_PANELS = ROWS - 1 if VECTOR_BYTES == 64 else ROWS // 2  # panels of a row whose sums fit the registers
AHEAD = 6  # rows that packing asks for before it comes to them
STREAMS = 4  # weight rows that a sum of rows reads side by side
DOT_COLUMNS = 6  # weight rows of a tile of dot products
DOT_ROWS = 4 if VECTOR_BYTES == 64 else 2 if ROWS > 4 else 1


class _Emitter:
    """Vector instructions for one array type, at the builder's present place; `share` of a vector's lanes."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, share: int = 1) -> None:
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.element = context.get_value_type(signature.args[0].dtype)
        self.size = 4 if isinstance(self.element, ir.FloatType) else 8
        self.lanes = VECTOR_BYTES // self.size // share
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def pointer(self, array: int) -> Any:
        """Address of the element whose index is the argument after the array."""
        make = self.context.make_array(self.signature.args[array])
        data = make(self.context, self.builder, self.arguments[array]).data
        return self.builder.gep(data, [self.arguments[array + 1]])

    def move(self, pointer: Any, elements: Any) -> Any:
        return self.builder.gep(pointer, [INT64(elements) if isinstance(elements, int) else elements])

    def load(self, pointer: Any, vector: int = 0) -> Any:
        place = self.builder.bitcast(self.move(pointer, vector * self.lanes), self.vector.as_pointer())
        value = self.builder.load(place)
        value.align = self.size
        return value

    def store(self, value: Any, pointer: Any, vector: int = 0) -> None:
        place = self.builder.bitcast(self.move(pointer, vector * self.lanes), self.vector.as_pointer())
        self.builder.store(value, place).align = self.size

    def either(self, condition: Any, make: Any) -> None:
        """Code in two versions, make(True) and make(False), of which the condition chooses one when it runs."""
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                make(True)
            with otherwise:
                make(False)

    def put(self, value: Any, pointer: Any, stream: Any = None) -> None:
        """Store a vector past the caches, or as usual where `stream` says no; past them it must start a line."""
        if stream is not None:
            self.either(stream, lambda past: (self.put if past else self.store)(value, pointer))
            return
        store = self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()))
        store.align = self.lanes * self.size
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(INT32, 1)]))

    def splat(self, value: Any) -> Any:
        """A number in all lanes."""
        kind = ir.VectorType(value.type, self.lanes)
        return self.shuffle(self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, INT32(0)),
                            [0] * self.lanes)

    def shuffle(self, value: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def broadcast(self, pointer: Any) -> Any:
        one = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), self.builder.load(pointer),
                                          INT32(0))
        return self.shuffle(one, [0] * self.lanes)

    def prefetch(self, pointer: Any, vector: int = 0) -> None:
        """Ask for a vector's cache line; an address outside the array does no harm."""
        place = self.builder.bitcast(self.move(pointer, vector * self.lanes), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT32, INT32, INT32])
        name = "llvm.prefetch.p0" + ("" if str(place.type) == "ptr" else "i8")  # LLVM 14 has typed pointers
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        self.builder.call(function, [place, INT32(0), INT32(2), INT32(1)])  # to read, into the second level

    def multiply_add(self, left: Any, right: Any, total: Any) -> Any:
        if not FUSED:
            return self.builder.fadd(total, self.builder.fmul(left, right))
        name = f"llvm.fma.v{self.lanes}f{self.size * 8}"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        return self.builder.call(function, [left, right, total])

    def loop(self, count: Any, start: list[Any], body: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Run `body` count times (at least once) on values that stay in registers."""
        before, block = self.builder.block, self.builder.append_basic_block("loop")
        after = self.builder.append_basic_block("after")
        self.builder.branch(block)
        self.builder.position_at_end(block)
        values = [self.builder.phi(value.type) for value in (INT64(0), *start)]
        following = [self.builder.add(values[0], INT64(1)), *body(values[1:])]
        for phi, first, last in zip(values, (INT64(0), *start), following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", following[0], count), block, after)
        self.builder.position_at_end(after)
        return following[1:]

    def cases(self, value: Any, count: int, emit: Callable[[int], None]) -> None:
        """Emit one version for each value from 1 to `count`; other values do nothing."""
        done = self.builder.append_basic_block("done")
        switch = self.builder.switch(value, done)
        for case in range(1, count + 1):
            block = self.builder.append_basic_block(f"case{case}")
            switch.add_case(INT64(case), block)
            self.builder.position_at_end(block)
            emit(case)
            self.builder.branch(done)
        self.builder.position_at_end(done)


def _multiply(vectors: int, by_rows: bool) -> Any:
    """Make the product c[rows x panel] += a[rows x depth] * b[depth x panel].

    By rows, a's rows lie STRIDE apart, a constant, so that every address is a base plus a number in
    the instruction; else a is stored transposed, `a_step` from one column to the next. Consecutive rows
    of b lie `b_step` apart, those of c `c_step`. `vectors` is 2 for a panel, 1 for its first half.
    """

    @intrinsic
    def multiply(typing: Any, c: Any, c_start: Any, c_step: Any, a: Any, a_start: Any, a_step: Any,
                 b: Any, b_start: Any, b_step: Any, rows: Any, depth: Any) -> Any:
        number = types.int64
        signature = types.void(c, number, number, a, number, number, b, number, number, number, number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, signature, arguments)
            c_step, a_step, b_step, rows, depth = (arguments[i] for i in (2, 5, 8, 9, 10))
            out, left, right = (emit.pointer(array) for array in (0, 3, 6))
            ahead = builder.mul(b_step, INT64(COMING))

            def tile(height: int) -> None:
                def step(values: list[Any]) -> list[Any]:
                    a, b, *sums = values
                    columns = [emit.load(b, vector) for vector in range(vectors)]
                    for vector in range(vectors):
                        emit.prefetch(emit.move(b, ahead), vector)
                    for row in range(height):
                        number = emit.broadcast(emit.move(a, row * STRIDE if by_rows else row))
                        for vector in range(vectors):
                            at = row * vectors + vector
                            sums[at] = emit.multiply_add(number, columns[vector], sums[at])
                    return [emit.move(a, 1 if by_rows else a_step), emit.move(b, b_step), *sums]

                sums = emit.loop(depth, [left, right] + [emit.zero] * (height * vectors), step)[2:]
                place = out
                for row in range(height):
                    for vector in range(vectors):
                        total = builder.fadd(emit.load(place, vector), sums[row * vectors + vector])
                        emit.store(total, place, vector)
                    place = emit.move(place, c_step)

            emit.cases(rows, ROWS, tile)
            return context.get_dummy_value()

        return signature, generate

    return multiply


@intrinsic
def multiply_present(typing: Any, c: Any, c_start: Any, a: Any, a_start: Any, b: Any, b_start: Any,
                     panel_step: Any, panels: Any, depth: Any) -> Any:
    """One row c[panels] += a[depth] * b, without the products of a's zeros.

    Same sums, same bits as by `multiply_rows` where b is finite: x + 0 * b is x. b's rows are a panel
    apart, its panels `panel_step`. 64 numbers of a make a mask of those that are not zero.
    """
    number = types.int64
    signature = types.void(c, number, a, number, b, number, number, number, number)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        out, left, right = (emit.pointer(array) for array in (0, 2, 4))
        panel_step, panels, depth = arguments[6:]
        group, panel = 64, 2 * emit.lanes
        groups = builder.sdiv(builder.add(depth, INT64(group - 1)), INT64(group))

        def present(a: Any, remaining: Any) -> Any:
            bits: Any = INT64(0)
            for vector in range(group // emit.lanes):
                found = builder.fcmp_unordered("!=", emit.load(a, vector), emit.zero)
                word = builder.zext(builder.bitcast(found, ir.IntType(emit.lanes)), INT64)
                bits = builder.or_(bits, builder.shl(word, INT64(vector * emit.lanes)))
            last = builder.sub(builder.shl(INT64(1), builder.and_(remaining, INT64(group - 1))), INT64(1))
            whole = builder.icmp_signed(">=", remaining, INT64(group))
            return builder.and_(bits, builder.select(whole, INT64(-1), last))

        def tile(count: int) -> None:
            def one(values: list[Any]) -> list[Any]:
                a, b, remaining, *sums = values
                before, head = builder.block, builder.append_basic_block("present")
                body, after = builder.append_basic_block("product"), builder.append_basic_block("absent")
                first = [present(a, remaining), *sums]
                builder.branch(head)
                builder.position_at_end(head)
                phis = [builder.phi(value.type) for value in first]
                for phi, value in zip(phis, first, strict=True):
                    phi.add_incoming(value, before)
                builder.cbranch(builder.icmp_signed("!=", phis[0], INT64(0)), body, after)
                builder.position_at_end(body)
                k = builder.cttz(phis[0], ir.Constant(ir.IntType(1), 1))
                factor = emit.broadcast(emit.move(a, k))
                place = emit.move(b, builder.mul(k, INT64(panel)))
                following = [builder.and_(phis[0], builder.sub(phis[0], INT64(1)))]
                for at in range(count):
                    for vector in range(2):
                        following.append(emit.multiply_add(factor, emit.load(place, vector), phis[1 + 2 * at + vector]))
                    place = emit.move(place, panel_step)
                for phi, value in zip(phis, following, strict=True):
                    phi.add_incoming(value, builder.block)
                builder.branch(head)
                builder.position_at_end(after)
                return [emit.move(a, group), emit.move(b, group * panel), builder.sub(remaining, INT64(group)),
                        *phis[1:]]

            sums = emit.loop(groups, [left, right, depth] + [emit.zero] * (2 * count), one)[3:]
            for at, value in enumerate(sums):
                emit.store(builder.fadd(emit.load(out, at), value), out, at)

        emit.cases(panels, PRESENT_PANELS, tile)
        return context.get_dummy_value()

    return signature, generate


multiply_rows = _multiply(2, True)
multiply_rows_narrow = _multiply(1, True)
multiply_columns = _multiply(2, False)
multiply_columns_narrow = _multiply(1, False)


@intrinsic
def dot_rows(typing: Any, totals: Any, start: Any, x: Any, x_start: Any, x_step: Any, w: Any, w_start: Any,
             w_step: Any, rows: Any, columns: Any, depth: Any) -> Any:
    """totals[row, column, lane] += x[row] * w[column], lane by lane, over `depth` vectors.

    Both matrices have their rows along the depth. Up to DOT_ROWS rows of x meet DOT_COLUMNS rows of w;
    of these, those past `columns` are the last one again, so nothing outside the matrix is read.
    """
    number = types.int64
    signature = types.void(totals, number, x, number, number, w, number, number, number, number, number)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        x_step, w_step, rows, columns, depth = (arguments[i] for i in (4, 7, 8, 9, 10))
        out, left, right = (emit.pointer(array) for array in (0, 2, 5))
        last = builder.sub(columns, INT64(1))
        ws = []
        for column in range(DOT_COLUMNS):
            inside = builder.icmp_signed("<", last, INT64(column))
            ws.append(emit.move(right, builder.mul(builder.select(inside, last, INT64(column)), w_step)))

        def tile(height: int) -> None:
            xs = [emit.move(left, builder.mul(INT64(row), x_step)) for row in range(height)]

            def step(values: list[Any]) -> list[Any]:
                place, *sums = values
                vectors = [emit.load(emit.move(w, place)) for w in ws]
                for row in range(height):
                    numbers = emit.load(emit.move(xs[row], place))
                    for column in range(DOT_COLUMNS):
                        at = row * DOT_COLUMNS + column
                        sums[at] = emit.multiply_add(numbers, vectors[column], sums[at])
                return [builder.add(place, INT64(emit.lanes)), *sums]

            sums = emit.loop(depth, [INT64(0)] + [emit.zero] * (height * DOT_COLUMNS), step)[1:]
            for at, value in enumerate(sums):
                emit.store(builder.fadd(emit.load(out, at), value), out, at)

        emit.cases(rows, DOT_ROWS, tile)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_rows(typing: Any, sums: Any, start: Any, step: Any, dy: Any, dy_start: Any, dy_step: Any, w: Any, w_start: Any,
             w_step: Any, rows: Any, count: Any, vectors: Any) -> Any:
    """sums[row] += dy[row, k] * w[k] for k in order, one fused multiply-add each; up to 4 rows, up to STREAMS k.

    Consecutive rows of sums lie `step` apart, those of dy and w `dy_step` and `w_step`.
    """
    number = types.int64
    signature = types.void(sums, number, number, dy, number, number, w, *[number] * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        step, dy_step, w_step, rows, count, vectors = (arguments[i] for i in (2, 5, 8, 9, 10, 11))
        out, left, right = (emit.pointer(array) for array in (0, 3, 6))

        def streams(depth: int) -> None:
            def tile(height: int) -> None:
                factors = [[emit.broadcast(emit.move(left, builder.add(builder.mul(dy_step, INT64(row)), INT64(k))))
                            for k in range(depth)] for row in range(height)]

                def one(values: list[Any]) -> list[Any]:
                    sums, weights = values
                    places = [emit.move(sums, builder.mul(step, INT64(row))) for row in range(height)]
                    totals = [emit.load(place) for place in places]
                    for k in range(depth):
                        vector = emit.load(emit.move(weights, builder.mul(w_step, INT64(k))))
                        totals = [emit.multiply_add(factors[row][k], vector, total)
                                  for row, total in enumerate(totals)]
                    for total, place in zip(totals, places, strict=True):
                        emit.store(total, place)
                    return [emit.move(each, emit.lanes) for each in values]

                emit.loop(vectors, [out, right], one)

            emit.cases(rows, 4, tile)

        emit.cases(count, STREAMS, streams)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_lanes(typing: Any, array: Any, start: Any) -> Any:
    """Sum of one vector's numbers: halves are added to each other until one number is left."""
    signature = array.dtype(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        value, lanes = emit.load(emit.pointer(0)), emit.lanes
        while lanes > 1:
            lanes //= 2
            value = builder.fadd(emit.shuffle(value, list(range(lanes))),
                                 emit.shuffle(value, list(range(lanes, 2 * lanes))))
        return builder.extract_element(value, INT32(0))

    return signature, generate


def _spread(copies: bool) -> Any:
    """Make a copy (or a fill with zeros) in whole vectors, which writes up to a vector past its end."""

    @intrinsic
    def spread(typing: Any, target: Any, target_start: Any, source: Any, source_start: Any,
               count: Any) -> Any:
        signature = types.void(target, types.int64, source, types.int64, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, signature, arguments)
            out, numbers = emit.pointer(0), emit.pointer(2)
            rounds = builder.sdiv(builder.add(arguments[4], INT64(emit.lanes - 1)), INT64(emit.lanes))

            def step(values: list[Any]) -> list[Any]:
                emit.store(emit.load(values[1]) if copies else emit.zero, values[0])
                return [emit.move(value, emit.lanes) for value in values]

            emit.loop(rounds, [out, numbers], step)
            return context.get_dummy_value()

        return signature, generate

    return spread


@intrinsic
def prefetch(typing: Any, array: Any, start: Any) -> Any:
    """Ask for the cache line of an element; an address outside the array does no harm."""
    signature = types.void(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        emit.prefetch(emit.pointer(0))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_vectors(typing: Any, target: Any, target_start: Any, source: Any, source_start: Any, count: Any) -> Any:
    """target += source for `count` numbers, a few dozen: whole vectors, then the rest by halves of one."""
    signature = types.void(target, types.int64, source, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        out, numbers, count = emit.pointer(0), emit.pointer(2), arguments[4]

        def step(values: list[Any]) -> list[Any]:
            emit.store(builder.fadd(emit.load(values[0]), emit.load(values[1])), values[0])
            return [emit.move(value, emit.lanes) for value in values]

        whole = builder.sdiv(count, INT64(emit.lanes))
        with builder.if_then(builder.icmp_signed(">", whole, INT64(0))):
            emit.loop(whole, [out, numbers], step)
        at, lanes = builder.mul(whole, INT64(emit.lanes)), emit.lanes // 2
        while lanes:
            here = builder.and_(count, INT64(lanes))
            with builder.if_then(builder.icmp_signed("!=", here, INT64(0))):
                kind = ir.VectorType(emit.element, lanes).as_pointer()
                places = [builder.bitcast(emit.move(each, at), kind) for each in (out, numbers)]
                values = [builder.load(place) for place in places]
                for value in values:
                    value.align = emit.size
                builder.store(builder.fadd(*values), places[0]).align = emit.size
            at, lanes = builder.add(at, here), lanes // 2
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def streamed(typing: Any) -> Any:
    """What was stored past the caches is there for other threads: the end of every kernel that does so."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


copy_vectors = _spread(True)
zero_vectors = _spread(False)
