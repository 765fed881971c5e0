"""
FuseOps by its own algorithm
============================

Pattern kinds, the forward graph, post-dominators and three phases: the
partition of FuseOps written again in Python and compared with the pass.
"""

# sphinx_gallery_line_numbers = True

# %% cell: setup
import inspect
import random
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np
import tvm
from tvm import ir, relax, tirx
from tvm.relax import op
from tvm.relax import transform as tr
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.running_example import MLP, as_tensors

ELEMWISE, BROADCAST, INJECTIVE, REDUCE, OUT_FUSABLE = range(5)
TUPLE, OPAQUE = 7, 8
KINDS = {
    ELEMWISE: "ElemWise",
    BROADCAST: "Broadcast",
    INJECTIVE: "Injective",
    REDUCE: "CommReduce",
    OUT_FUSABLE: "OutEWiseFusable",
    TUPLE: "Tuple",
    OPAQUE: "Opaque",
}


def show(thing, **options):
    """Print IR; lines that are too long for the page are broken."""
    for line in cut(script(thing), **options).splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


def annotated(mod):
    """Operators as PrimFuncs, each with its op_pattern."""
    return tr.AnnotateTIROpPattern()(tr.LegalizeOps()(mod))


# %% cell: kinds


def kind_of(make, *shapes):
    """The kind of the PrimFunc of one operator."""
    bb = relax.BlockBuilder()
    params = [
        relax.Var(f"p{i}", relax.TensorType(s, "float32"))
        for i, s in enumerate(shapes)
    ]
    with bb.function("main", params):
        with bb.dataflow():
            out = bb.emit_output(make(*params))
        bb.emit_func_output(out)
    functions = annotated(bb.get()).functions_items()
    (func,) = [f for _, f in functions if isinstance(f, tirx.PrimFunc)]
    return int(func.attrs["op_pattern"])


EXAMPLES = {
    "exp(x)": (op.exp, (4, 8)),
    "add(x, bias)": (op.add, (4, 8), (8,)),
    "add(column, row)": (op.add, (4, 1), (1, 8)),
    "broadcast_to(row)": (lambda r: op.broadcast_to(r, (4, 8)), (8,)),
    "permute_dims(x)": (op.permute_dims, (4, 8)),
    "reshape(x)": (lambda x: op.reshape(x, (32,)), (4, 8)),
    "concat(x, y)": (lambda x, y: op.concat((x, y), 0), (4, 8), (4, 8)),
    "split(x)": (lambda x: op.split(x, 2, 1), (4, 8)),
    "sum(x, axis=1)": (lambda x: op.sum(x, 1), (4, 8)),
    "mean(x, axis=1)": (lambda x: op.mean(x, 1), (4, 8)),
    "matmul(x, w)": (op.matmul, (4, 8), (8, 4)),
    "max_pool2d(x)": (lambda x: op.nn.max_pool2d(x, (2, 2)), (1, 1, 4, 4)),
    "softmax(x)": (op.nn.softmax, (4, 8)),
    "layer_norm(x)": (
        lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]),
        (4, 8),
        (8,),
        (8,),
    ),
    "take(x, [1, 2])": (
        lambda x: op.take(x, relax.const([1, 2], "int64"), 0, mode="clip"),
        (4, 8),
    ),
}
found = {text: kind_of(*example) for text, example in EXAMPLES.items()}
for text, kind in found.items():
    print(f"{text:20s} {kind}  {KINDS[kind]}")

# %% cell: keeps


@T.prim_func(s_tir=True)
def shift(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = A[7 - v]


for given in (OPAQUE, ELEMWISE):
    func = shift.with_attr("op_pattern", given)
    after = tr.AnnotateTIROpPattern()(tvm.IRModule({"f": func}))["f"]
    print("op_pattern given:", given, " after:", after.attrs["op_pattern"])

# %% cell: example


@I.ir_module
class Example:
    @R.function
    def main(
        x: R.Tensor((16, 32), "float32"),
        w: R.Tensor((32, 16), "float32"),
        bias: R.Tensor((16,), "float32"),
    ):
        with R.dataflow():
            h = R.matmul(x, w)
            a = R.add(h, bias)
            s = R.sigmoid(a)
            t = R.tanh(a)
            m = R.multiply(s, t)
            p = R.permute_dims(m)
            r = R.nn.relu(p)
            e = R.exp(m)
            q = R.sum(e, axis=1)
            d = R.divide(r, q)
            R.output(d)
        return d


# %% cell: graph


@dataclass
class Node:
    """A binding of a dataflow block, as FuseOps sees it."""

    name: str
    label: str
    kind: int
    extern: bool  # the result is seen outside of the block
    outputs: list = field(default_factory=list)  # (index, kind of consumer)


def forward_graph(mod, function="main"):
    """The indexed forward graph: bindings in order, edges to consumers."""
    nodes, index = [], {}
    for block in mod[function].body.blocks:
        for binding in block.bindings:
            value, args = binding.value, []
            kind, label = OPAQUE, type(value).__name__
            if isinstance(binding, relax.MatchCast):
                label = "match_cast"  # and no edges
            elif isinstance(value, relax.TupleGetItem):
                kind, args = INJECTIVE, [value.tuple_value]
                label = f"[{value.index}]"
            elif isinstance(value, relax.Call):
                label, args = str(value.op), list(value.args)
                if isinstance(value.op, ir.Op):
                    label = value.op.name
                if label in ("relax.call_tir", "relax.call_tir_inplace"):
                    label, args = args[0].name_hint, list(args[1].fields)
                    attrs = mod[label].attrs
                    kind = int(attrs.get("op_pattern", OPAQUE))
            elif isinstance(value, relax.Tuple):
                args = list(value.fields)
            extern = not isinstance(binding.var, relax.DataflowVar)
            for arg in args:
                for leaf in getattr(arg, "fields", [arg]):
                    if leaf in index:
                        edge = (len(nodes), kind)
                        nodes[index[leaf]].outputs.append(edge)
            index[binding.var] = len(nodes)
            nodes.append(Node(binding.var.name, label, kind, extern))
    return nodes


nodes = forward_graph(annotated(Example))
for i, n in enumerate(nodes):
    to = ", ".join(f"{nodes[j].name} ({kind})" for j, kind in n.outputs)
    print(f"{i}  {n.name}  {n.label:10s} kind {n.kind}  ->  {to or '-'}")

# %% cell: post-dominators


@dataclass
class TreeNode:
    parent: int | None = None  # the immediate post-dominator
    depth: int = 1
    pattern: int = OPAQUE  # the largest edge kind on the way to it


def post_dominators(nodes):
    """One pass from the last node to the first."""
    tree = [TreeNode() for _ in nodes]
    for i in reversed(range(len(nodes))):
        if nodes[i].extern or not nodes[i].outputs:
            if not nodes[i].extern:
                tree[i].pattern = ELEMWISE
            continue
        (ancestor, pattern), *others = nodes[i].outputs
        for other, kind in others:
            while ancestor != other and None not in (ancestor, other):
                depths = tree[ancestor].depth, tree[other].depth
                if depths[0] >= depths[1]:
                    pattern = max(pattern, tree[ancestor].pattern)
                    ancestor = tree[ancestor].parent
                if depths[1] >= depths[0]:
                    pattern = max(pattern, tree[other].pattern)
                    other = tree[other].parent
            if ancestor != other:
                ancestor = None
            pattern = max(pattern, kind)
        depth = 1 if ancestor is None else tree[ancestor].depth + 1
        tree[i] = TreeNode(ancestor, depth, pattern)
    return tree


tree = post_dominators(nodes)
for n, t in zip(nodes, tree, strict=True):
    parent = "-" if t.parent is None else nodes[t.parent].name
    print(f"{n.name}: parent {parent}, depth {t.depth}, pattern {t.pattern}")

# %% cell: partition


class Partition:
    """Groups of a forward graph, found as GraphPartitioner finds them."""

    def __init__(self, nodes, max_depth=256, phases=(0, 1, 2)):
        self.nodes, self.tree = nodes, post_dominators(nodes)
        self.above = list(range(len(nodes)))  # union-find
        self.kind = [n.kind for n in nodes]  # of the group with this index
        self.size = [1] * len(nodes)
        self.log, self.max_depth = [], max_depth
        for phase in phases:
            for i in range(len(nodes)):
                self.visit(phase, i)

    def root(self, i):
        while self.above[i] != i:
            i = self.above[i]
        return i

    def between(self, i, sink):
        """Nodes on the paths from i to its post-dominator, with i."""
        seen, todo = [], [i]
        while todo:
            j = todo.pop()
            if j != sink and j not in seen:
                seen.append(j)
                todo += [k for k, _ in self.nodes[j].outputs]
        return sorted(seen)

    def paths_fit(self, i, sink, inner, last):
        inside = [j for j in self.between(i, sink) if j != i]
        kinds = [self.kind[self.root(j)] for j in inside]
        return all(k <= inner for k in kinds) and (
            self.kind[self.root(sink)] in last
        )

    def fuse(self, phase, i, sink):
        for j in self.between(i, sink):
            child, target = self.root(j), self.root(sink)
            if child != target:
                self.above[child] = target
                self.size[target] += self.size[child]
                if self.kind[child] == OUT_FUSABLE:
                    self.kind[target] = OUT_FUSABLE
        names = [self.nodes[j].name for j in self.between(i, sink)]
        self.log.append((phase, names, self.nodes[sink].name))

    def visit(self, phase, i):
        kind, t = self.kind[i], self.tree[i]
        if kind == OPAQUE or t.parent is None:
            return
        sink = t.parent
        inside = sum(self.size[j] for j in self.between(i, sink))
        if self.size[self.root(sink)] + inside > self.max_depth:
            return
        if phase == 2:  # only into tuples, which Relax does not make
            return
        if self.root(i) == self.root(sink) or self.kind[sink] == TUPLE:
            return
        upto = range
        if kind == OUT_FUSABLE:
            fits = phase == 0 and t.pattern == ELEMWISE
            limits = BROADCAST, upto(BROADCAST + 1)
        elif kind <= BROADCAST:
            fits = t.pattern <= REDUCE
            limits = INJECTIVE, upto(OUT_FUSABLE + 1)
        elif kind == INJECTIVE:
            fits = phase == 1
            limits = INJECTIVE, upto(INJECTIVE + 1)
        else:
            return  # a reduction
        if fits and self.paths_fit(i, sink, *limits):
            self.fuse(phase, i, sink)

    def groups(self):
        """The groups with more than one node, as lists of names."""
        found = {}
        for i, n in enumerate(self.nodes):
            found.setdefault(self.root(i), []).append(n.name)
        return [g for g in found.values() if len(g) > 1]


plan = Partition(nodes)
for phase, names, sink in plan.log:
    print(f"phase {phase}: {', '.join(names)} -> {sink}")
print(*plan.groups())

# %% cell: real
fused = tr.FuseOps()(annotated(Example))
show(fused["main"])

# %% cell: figure
members = plan.groups()
tints = {}
for color, group in zip(("navy", "orange", "green"), members, strict=True):
    tints.update(dict.fromkeys(group, color))
fig, _ = layered_graph(
    {
        n.name: f"{n.name} = {n.label.removeprefix('tir_')}\n{KINDS[n.kind]}"
        for n in nodes
    },
    {(n.name, nodes[j].name): "" for n in nodes for j, _ in n.outputs},
    colors=tints,
)
alt(
    fig,
    "Data flow of ten operators. matmul h, add a, sigmoid s and tanh t side "
    "by side, multiply m form the first group. From m one way goes through "
    "permute_dims p and relu r to divide d, the second group; the other "
    "through exp e and sum q, the third group, to d.",
)

# %% cell: tree-figure
fig, _ = layered_graph(
    {n.name: n.name for n in nodes},
    {
        (n.name, nodes[t.parent].name): KINDS[t.pattern]
        for n, t in zip(nodes, tree, strict=True)
        if t.parent is not None
    },
    colors=tints,
    direction="right",
)
alt(
    fig,
    "The post-dominator tree. h points to a with ElemWise; a, s and t point "
    "to m with ElemWise; m points past its branches to d with CommReduce; "
    "p points to r with ElemWise, r to d with ElemWise, e to q with "
    "CommReduce, and q to d with ElemWise. d is the root.",
)

# %% cell: compare


def real_groups(mod, function="main", **config):
    """What the pass did: the operators behind each call of a group."""
    with tvm.transform.PassContext(config=config):
        after = tr.FuseOps()(mod)
    groups = []
    for block in after[function].body.blocks:
        for binding in block.bindings:
            callee = getattr(binding.value, "op", None)
            if isinstance(callee, ir.GlobalVar):
                body = after[callee].body.blocks[0].bindings
                calls = [b.value for b in body]
                groups.append(
                    [
                        call.args[0].name_hint
                        for call in calls
                        if isinstance(call, relax.Call)
                    ]
                )
    return sorted(groups)


def predicted(mod, max_depth=256, **options):
    nodes = forward_graph(mod)
    labels = {n.name: n.label for n in nodes}
    groups = Partition(nodes, max_depth, **options).groups()
    named = ([labels[name] for name in g] for g in groups)
    # parts of a tuple may become parameters of the fused function
    return sorted([n for n in g if not n.startswith("[")] for g in named)


def random_module(seed, size=14):
    """A random program of small operators on 8x8 matrices."""
    choose = random.Random(seed)
    shape = relax.TensorType((8, 8), "float32")
    bb = relax.BlockBuilder()
    params = [relax.Var(name, shape) for name in ("x", "y")]
    with bb.function("main", params):
        with bb.dataflow():
            values = list(params)
            for _ in range(size):
                # prefer young values, so that chains and diamonds arise
                one, two = (choose.choice(values[-5:]) for _ in range(2))
                make = choose.choice(
                    [op.exp, op.tanh, op.abs]
                    + 2 * [lambda v, two=two: op.add(v, two)]
                    + [lambda v, two=two: op.matmul(v, two)]
                    + [op.permute_dims, op.nn.softmax]
                    + [lambda v: op.sum(v, 1, keepdims=True)]
                    + [lambda v: op.split(v, 2, 1)]
                )
                value = make(one)
                if isinstance(bb.normalize(value).ty, relax.TupleType):
                    parts = bb.emit(value)
                    halves = [bb.emit(parts[1]), bb.emit(parts[0])]
                    value = op.concat(tuple(halves), 1)
                elif bb.normalize(value).ty.shape[1] == 1:
                    value = op.multiply(bb.emit(value), two)
                values.append(bb.emit(value))
            leaves = [bb.emit_output(op.negative(v)) for v in values[-2:]]
        bb.emit_func_output(relax.Tuple(leaves))
    return tr.DeadCodeElimination()(bb.get())


agreed = fused_ops = largest = 0
for seed in range(40):
    mod = annotated(random_module(seed))
    for depth in (256, 3):
        config = {"relax.FuseOps.max_depth": depth}
        real = real_groups(mod, **config)
        assert real == predicted(mod, depth), seed
        agreed += 1
        fused_ops += sum(map(len, real))
        largest = max([largest, *map(len, real)])
print(f"{agreed} partitions agree; {fused_ops} operators were fused,")
print(f"the largest group has {largest}")

# %% check
assert real_groups(annotated(Example)) == predicted(annotated(Example))
mlp = annotated(MLP)
assert real_groups(mlp) == predicted(mlp) != []
assert all(
    predicted(annotated(random_module(seed)))
    == predicted(annotated(random_module(seed)), phases=(0, 1))
    for seed in range(10)
)

# %% cell: grouped
(name,) = [
    g.name_hint
    for g in fused.get_global_vars()
    if "exp" in g.name_hint and "fused" in g.name_hint
]
show(fused[name])

# %% cell: fuse-tir
merged = tr.FuseTIR()(fused)
show(merged[name])

# %% cell: no-fuse-tir
code = tvm.compile(fused, target="llvm").as_text()
body = code.partition(f"@{name}:")[2].partition("\n\n")[0]
for line in body.splitlines():
    if "  call" in line:
        print(line.split()[1])

# %% check
rng = np.random.default_rng(0)
arrays = [
    rng.standard_normal(s).astype("float32")
    for s in ((16, 32), (32, 16), (16,))
]
x, w, bias = arrays
a = x @ w + bias
m = np.tanh(a) / (1 + np.exp(-a))
wanted = np.maximum(m.T, 0) / np.exp(m).sum(1)
vm = relax.VirtualMachine(tvm.compile(merged, "llvm"), tvm.cpu())
assert np.allclose(vm["main"](*as_tensors(arrays)).numpy(), wanted, atol=1e-5)

# %% cell: reasons


def program(*steps, outputs=("last",)):
    """Modules of one dataflow block; each step makes the next value."""
    bb = relax.BlockBuilder()
    matrix = relax.TensorType((8, 8), "float32")
    params = [relax.Var(name, matrix) for name in ("x", "w")]
    with bb.function("main", params):
        with bb.dataflow():
            values, last = [], params[0]
            for step in steps:
                last = bb.emit(step(last, params[1]))
                values.append(last)
            if outputs == ("last",):
                values = values[-1:]
            results = [bb.emit_output(v) for v in values]
        bb.emit_func_output(
            results[0] if len(results) == 1 else relax.Tuple(results)
        )
    return tr.CanonicalizeBindings()(bb.get())


def relu(v, w):
    return op.nn.relu(v)


def exp(v, w):
    return op.exp(v)


def matmul(v, w):
    return op.matmul(v, w)


def permute(v, w):
    return op.permute_dims(v)


def total(v, w):
    return op.sum(v, 1, keepdims=True)


def mean(v, w):
    return op.mean(v, 1, keepdims=True)


def softmax(v, w):
    return op.nn.softmax(v)


def spread(v, w):
    return op.broadcast_to(v, (8, 8, 8))


def foreign(v, w):
    return op.call_pure_packed("f", v, ty_args=[v.ty])


CASES = {
    "exp, relu": program(exp, relu),
    "exp, relu, both returned": program(exp, relu, outputs="all"),
    "relu, matmul": program(relu, matmul),
    "matmul, relu": program(matmul, relu),
    "matmul(x, w) + exp(w)": program(
        lambda v, w: op.add(op.matmul(v, w), op.exp(w))
    ),
    "matmul, permute": program(matmul, permute),
    "matmul, broadcast": program(matmul, spread),
    "matmul, relu, matmul, relu": program(matmul, relu, matmul, relu),
    "permute, matmul": program(permute, matmul),
    "permute, relu": program(permute, relu),
    "relu, permute": program(relu, permute),
    "relu, sum": program(relu, total),
    "sum, relu": program(total, relu),
    "permute, sum": program(permute, total),
    "relu, mean": program(relu, mean),
    "mean, relu": program(mean, relu),
    "softmax, relu": program(softmax, relu),
    "exp, foreign, relu": program(exp, foreign, relu),
}
for text, mod in CASES.items():
    groups = real_groups(annotated(mod))
    assert groups == predicted(annotated(mod)), text
    print(f"{text:27s}", groups or "nothing fused")

# %% cell: switches
chain = annotated(program(exp, relu, exp, relu, exp))
print(
    "no op_pattern:       ", real_groups(tr.LegalizeOps()(CASES["exp, relu"]))
)
level0 = tr.FuseOps(fuse_opt_level=0)(chain)
print(
    "fuse_opt_level=0:    ",
    len(level0.get_global_vars()) - len(chain.get_global_vars()),
    "functions added",
)
for depth in (1, 2, 3):
    groups = real_groups(chain, **{"relax.FuseOps.max_depth": depth})
    print(f"max_depth={depth}:         ", groups)

# %% cell: outside


@I.ir_module
class Outside:
    @R.function
    def main(x: R.Tensor((8, 8), "float32")):
        a = R.exp(x)
        b = R.nn.relu(a)
        return b


inside = tr.ConvertToDataflow()(Outside)
print("no dataflow block:  ", real_groups(annotated(Outside)))
print("ConvertToDataflow:  ", real_groups(annotated(inside)))

# %% cell: hidden-use


@I.ir_module
class Cycle:
    @R.function
    def main(x: R.Tensor((8,), "float32")):
        with R.dataflow():
            a = R.exp(x)
            c = R.match_cast(a, R.Tensor((8,), "float32"))
            b = R.multiply(a, c)
            R.output(b)
        return b


with expect_error(tvm.error.InternalError, match="cyclic dependency"):
    tr.FuseOps()(annotated(Cycle))

# %% cell: hidden-use-silent


@I.ir_module
class Lost:
    @R.function
    def main(x: R.Tensor(("rows",), "float32")):
        cols = T.int64()
        with R.dataflow():
            a = R.exp(x)
            c = R.match_cast(a, R.Tensor((cols,), "float32"))
            b = R.multiply(R.nn.relu(a), R.sum(c))
            R.output(b)
        return b


lost = tr.FuseOps()(annotated(Lost))
show(lost["main"], keep="match_cast|fused", context=0)
with expect_error(ValueError, match="not defined"):
    relax.analysis.well_formed(lost)

# %% cell: solution-softmax


@I.ir_module
class Attention:
    @R.function
    def main(
        q: R.Tensor((16, 8), "float32"),
        k: R.Tensor((16, 8), "float32"),
        v: R.Tensor((16, 8), "float32"),
    ):
        with R.dataflow():
            kt = R.permute_dims(k)
            scores = R.matmul(q, kt)
            scaled = R.multiply(scores, R.const(0.35, "float32"))
            weights = R.nn.softmax(scaled)
            mixed = R.matmul(weights, v)
            out = R.nn.relu(mixed)
            R.output(out)
        return out


guess = predicted(annotated(Attention))
print("predicted:", guess)
print("the pass: ", real_groups(annotated(Attention)))

# %% check
assert guess == real_groups(annotated(Attention))
assert guess == [["matmul", "multiply"], ["matmul1", "relu"]]

# %% cell: solution-opaque
base = annotated(CASES["matmul, relu"])
relu_var = base.get_global_var("relu")
for value in (INJECTIVE, OPAQUE):
    changed = base.clone()
    func = changed[relu_var].with_attr("op_pattern", value)
    changed.update_func(relu_var, func)
    print(KINDS[value], "->", real_groups(changed) or "nothing fused")

# %% check
assert real_groups(base) == [["matmul", "relu"]]
assert real_groups(changed) == []
glue("partition_lines", len(inspect.getsource(Partition).splitlines()))
glue("largest", largest)
glue("agreed", agreed)
assert found["softmax(x)"] == OUT_FUSABLE
assert found["add(x, bias)"] == ELEMWISE
assert found["add(column, row)"] == BROADCAST
