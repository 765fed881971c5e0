"""Places in source: Python without importing, C++ with a parser, and the index that a checkout fills."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import symbols
from tvm_deepdive_helpers.sources import symbol_index
from tvm_deepdive_helpers.sources.common import AmbiguousSymbol, SourceError, digest, similar, split_target, split_title
from tvm_deepdive_helpers.sources.cpp_source import CppFile
from tvm_deepdive_helpers.sources.places import Places, is_cpp
from tvm_deepdive_helpers.sources.python_source import PythonSources
from tvm_deepdive_helpers.sources.wheel import Package, Wheels

# -- Python ----------------------------------------------------------------------------------------

PYTHON = {
    "__init__.py": """
        raise RuntimeError("this package must not be imported")
        from . import relax
        from .relax import build as make
        from .base import *
        import tvm.relax.expr as ex
        from numpy import array
        """,
    "base.py": """
        __all__ = ["shown"]
        def shown(): pass
        def hidden(): pass
        """,
    "relax/__init__.py": """
        from typing import TYPE_CHECKING
        from .expr import Expr, Call
        from .builder import BlockBuilder as Builder
        from . import op
        from .cyclic import around
        if TYPE_CHECKING:
            build = None
        else:
            from .vm_build import build
        Alias = Call
        legacy_build = build
        LIMIT = 3
        try:
            from .fast import speed
        except ImportError:
            speed = None
        """,
    "relax/cyclic.py": "from . import around\n",
    "relax/fast.py": "def speed():\n    return 1\n",
    "relax/vm_build.py": """
        import functools

        @functools.cache
        def build(mod,
                  target=None):
            '''Build.'''
            return mod, target
        """,
    "relax/expr.py": """
        from typing import Generic, TypeVar, overload
        from ..ir import Base
        T = TypeVar("T")
        class Expr(Base):
            ty: object
            @property
            def span(self): return None
            @span.setter
            def span(self, value): pass
            @overload
            def at(self, i: int) -> int: ...
            @overload
            def at(self, i: str) -> str: ...
            def at(self, i):
                return i
        class Call(Expr, Generic[T]):
            class Kind:
                PLAIN = 1
            def args(self): return ()
        """,
    "relax/builder.py": "import os\n\n\nclass BlockBuilder:\n    def emit(self): pass\n    emit_te = emit\n",
    "relax/op.py": "from ._ffi_api import add\n",
    "relax/_ffi_api.py": "import tvm_ffi\ntvm_ffi.init_ffi_api('relax', __name__)\n",
    "ir.py": "from tvm_ffi import Object\n\nclass Base(Object):\n    def same_as(self, other): return self is other\n",
    "script/__init__.py": '"""Dialects are found at run time."""\n',
    "relax/script/__init__.py": "from .parser import function\n",
    "relax/script/parser.py": "def function(f): return f\n",
    "src/runtime/vm.cc": "// the VM\nnamespace tvm {\nclass VM {\n public:\n  void Run() { step(); }\n};\n}\n",
}
FFI = {
    "__init__.py": "from .core import Object, Function\nfrom .registry import register\n",
    "registry.py": "def register(name):\n    return name\n",
    "core.pyi": "class Object: ...\n",
    "cython/core.pyx": 'include "./object.pxi"\ninclude "./function.pxi"\n',
    "cython/object.pxi": """
        cdef class CObject:
            cdef void* chandle

            def __hash__(self):
                return 1

        class Object(CObject):
            # a comment at another depth
            @property
            def handle(self):
                return self.chandle

        """,
    "cython/function.pxi": """
        cdef inline int make(void* handle,
                             int code) except -1:
            return 0

        cdef class Function(CObject):
            def __call__(self, *args):
                return args
        """,
    "include/tvm/ffi/any.h": "struct Any {\n  int x;\n};\n",
    "include/dlpack/dlpack.h": "struct DLTensor { int ndim; };\n",
}


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).removeprefix("\n"), encoding="utf-8")
    return root


@pytest.fixture
def wheels(tmp_path: Path) -> Wheels:
    """Two small packages that look like the real ones, and that must not be imported."""
    return Wheels(
        {
            "tvm": Package("tvm", write_tree(tmp_path / "site" / "tvm", PYTHON), "0.27.0.post1", "abc123456"),
            "tvm_ffi": Package("tvm_ffi", write_tree(tmp_path / "site" / "tvm_ffi", FFI), "0.1.14.post1", ""),
        }
    )


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("relax.vm_build.build", "tvm/relax/vm_build.py:build 3-7"),
        ("tvm.relax.build", "tvm/relax/vm_build.py:build 3-7"),
        ("make", "tvm/relax/vm_build.py:build 3-7"),
        ("relax.legacy_build", "tvm/relax/vm_build.py:build 3-7"),
        ("ex.Call", "tvm/relax/expr.py:Call 16-19"),
        ("relax.Alias.args", "tvm/relax/expr.py:Call.args 19-19"),
        ("relax.Call.Kind.PLAIN", "tvm/relax/expr.py:Call.Kind.PLAIN 18-18"),
        ("relax.Call.ty", "tvm/relax/expr.py:Expr.ty 5-5"),
        ("relax.Call.span", "tvm/relax/expr.py:Expr.span 6-7"),
        ("relax.Call.at", "tvm/relax/expr.py:Expr.at 14-15"),
        ("relax.Call.same_as", "tvm/ir.py:Base.same_as 4-4"),
        ("relax.Call.handle", "tvm_ffi/cython/object.pxi:Object.handle 9-11"),
        ("relax.Builder.emit", "tvm/relax/builder.py:BlockBuilder.emit 5-5"),
        ("relax.Builder.emit_te", "tvm/relax/builder.py:BlockBuilder.emit 5-5"),
        ("relax.LIMIT", "tvm/relax/__init__.py:LIMIT 12-12"),
        ("relax.speed", "tvm/relax/fast.py:speed 1-2"),
        ("shown", "tvm/base.py:shown 2-2"),
        ("relax", "tvm/relax/__init__.py: 1-16"),
        ("relax.expr", "tvm/relax/expr.py: 1-19"),
        ("script.relax.function", "tvm/relax/script/parser.py:function 1-1"),
        ("relax/vm_build.py", "tvm/relax/vm_build.py: 1-7"),
        ("relax/vm_build.py:build", "tvm/relax/vm_build.py:build 3-7"),
        ("relax/expr.py:Expr.at", "tvm/relax/expr.py:Expr.at 14-15"),
        ("relax/", "tvm/relax/: 1-1"),
        ("tvm_ffi/registry.py", "tvm_ffi/registry.py: 1-2"),
        ("tvm_ffi.register", "tvm_ffi/registry.py:register 1-2"),
        ("tvm_ffi.Object", "tvm_ffi/cython/object.pxi:Object 7-11"),
        ("tvm_ffi.Object.__hash__", "tvm_ffi/cython/object.pxi:CObject.__hash__ 4-5"),
        ("tvm_ffi.Function.__call__", "tvm_ffi/cython/function.pxi:Function.__call__ 6-7"),
        ("tvm_ffi.core.make", "tvm_ffi/cython/function.pxi:make 1-3"),
    ],
)
def test_python_name_is_found(wheels: Wheels, target: str, where: str) -> None:
    found = PythonSources(wheels).find(target)
    assert f"{found.package}/{found.file}:{found.name} {found.span.first}-{found.span.last}" == where
    assert found.kind == "folder" or f"{found.package}/{found.file}" in found.consulted


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("relax.Builder.emitt", "tvm 0.27.0.post1 has no `relax.Builder.emitt`; did you mean: `relax.Builder.emit`"),
        ("relax.vm_build.biuld", "did you mean: `relax.vm_build.build`"),
        ("relax.nothing.deep", "(there is `relax`, but no `nothing` in it)"),
        ("relax.op.add", "has no `relax.op.add`"),
        ("relax._ffi_api.add", "the functions of tvm/relax/_ffi_api are made at import time and have no source"),
        ("relax.around", "has no `relax.around`"),
        ("array", "has no `array`"),
        ("relax/vm_biuld.py", "has no file `relax/vm_biuld.py`; did you mean: `relax/vm_build.py`"),
        ("relax/vm_build.py:biuld", "has no `biuld`; did you mean: `relax/vm_build.py:build`"),
        ("relax/:build", "`relax/` is a folder, so it cannot hold `build`"),
        ("relax/../base.py", "has no file"),
        ("relax.build (", "is neither a dotted name nor a file"),
    ],
)
def test_unknown_python_name_says_what_exists(wheels: Wheels, target: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        PythonSources(wheels).find(target)
    assert message in str(caught.value)


def test_star_import_respects_all(wheels: Wheels) -> None:
    with pytest.raises(SourceError):
        PythonSources(wheels).find("hidden")


def test_every_file_on_the_way_is_named(wheels: Wheels) -> None:
    """A changed re-export must be noticed, so its file is a dependency too."""
    consulted = PythonSources(wheels).find("relax.Call.same_as").consulted
    assert {"tvm/__init__.py", "tvm/relax/__init__.py", "tvm/relax/expr.py", "tvm/ir.py"} <= set(consulted)


@pytest.mark.parametrize(
    "module",
    [
        "tvm",
        "tvm.ir",
        "tvm.relax",
        "tvm.relax.transform",
        "tvm.s_tir.schedule",
        "tvm.runtime",
        "tvm.target",
        "tvm_ffi.registry",
    ],
)
def test_installed_release_agrees_with_inspect(module: str) -> None:
    """Classes, functions and their methods stand where Python itself says, in the release that is installed."""
    installed = Wheels.installed()
    sources = PythonSources(installed)
    compared = 0
    for name, value in vars(import_module(module)).items():
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        members = {name: value}
        if inspect.isclass(value):
            members |= {f"{name}.{key}": one for key, one in vars(value).items() if not key.startswith("_")}
        for dotted, one in members.items():
            if not (inspect.isclass(one) or inspect.isfunction(one)):
                continue
            # What a decorator or a loop made does not stand where its name says.
            if not one.__module__.startswith(("tvm.", "tvm_ffi")) or one.__qualname__ != dotted:
                continue
            if inspect.unwrap(one) is not one:
                continue
            try:
                lines, first = inspect.getsourcelines(one)
            except (OSError, TypeError):  # made by a loop
                continue
            if "." in dotted and inspect.getsourcefile(one) != inspect.getsourcefile(value):
                continue  # put into the class by another module
            found = sources.find(f"{module}.{dotted}")
            assert (found.span.first, len(found.span)) == (first, len(lines)), dotted
            path = installed.packages[found.package].root / found.file
            assert path.samefile(inspect.getsourcefile(one)), dotted
            compared += 1
    assert compared > 5


def test_nothing_is_imported() -> None:
    """Citations of the real packages are resolved in a process that never loads them."""
    program = """
        import sys
        from tvm_deepdive_helpers.sources.python_source import PythonSources
        from tvm_deepdive_helpers.sources.wheel import Wheels
        sources = PythonSources(Wheels.installed())
        for name in ("relax.BlockBuilder.emit", "tvm_ffi.Function", "transform.PassContext", "script.tirx.prim_func"):
            sources.find(name)
        assert not {"tvm", "tvm_ffi", "sphinx", "tree_sitter"} & set(sys.modules)
        """
    env = os.environ | {"PYTHONPATH": str(Path(symbols.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=env)


@pytest.mark.parametrize(
    ("name", "version", "ref"),
    [
        ("tvm", "0.27.0.post1", "v0.27.0.post1"),
        ("tvm", "0.26.0", "v0.26.0"),
        ("tvm_ffi", "0.1.14.post1", "v0.1.14-post1"),
        ("tvm", "0.28.dev12", "abc"),
    ],
)
def test_tag_of_a_release(name: str, version: str, ref: str) -> None:
    assert Package(name, Path(), version, "abc").ref == ref


# -- C++ -------------------------------------------------------------------------------------------

CPP = """\
#include <tvm/x.h>
#ifndef GUARD_H_
#define GUARD_H_
namespace tvm {
namespace relax {

class Forward;

/*! \\brief A fuser. */
class TVM_DLL Fuser : public Mutator {
 public:
  explicit Fuser(int depth) : depth_(depth) {}
  TVM_DLL static Fuser Make(const std::vector<int>& xs = {});
  Expr VisitExpr_(const CallNode* op) final { return Go(op); }
  Expr VisitExpr_(const TupleNode* op) final {
    return Go(op);
  }
  static constexpr const char* kName = "fuser";
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("relax.Fuser", Fuser, Object);

 private:
  int depth_;
};

enum class Kind : int {
  kOpaque = 0,
  kInjective,
};

using FInfer = ffi::TypedFunction<Type(const Call&)>;
typedef struct Pair { int a; } Pair;

template <typename T>
inline T Twice(T x) {
  return x + x;
}

Fuser Fuser::Make(const std::vector<int>& xs) {
  return Fuser(1);
}

bool operator==(const Kind& a, const Kind& b) { return true; }

namespace transform {
Pass Fuse() { return Pass(); }
}  // namespace transform

Expr Fuse(Expr e) { return e; }

TVM_REGISTER_OP("relax.fuse")
    .set_num_inputs(2)  // a comment
    .set_attr<bool>("FPurity", true);

TVM_REGISTER_OP("relax.fuse_more").set_num_inputs(1);

RELAX_REGISTER_UNARY(relu, "nn.relu", /*float=*/false);

TVM_FFI_STATIC_INIT_BLOCK() {
  refl::GlobalDef()
      .def("relax.transform.Fuse", transform::Fuse)
      .def("relax.transform.Other", [](int x) {
        return Op::Get("relax.fuse");
      });
}

#define REGISTER(Name) \\
  TVM_REGISTER_OP(Name)

int table[3] = {1, 2, 3};
// OnlyInAComment("relax.ghost")

#ifdef USE_LLVM
void Generate(int a) {
#else
void Generate(long a) {
#endif
  if (a) {
    b();
  }
}
void AfterConditional() {}
}  // namespace relax
}  // namespace tvm
#endif
"""


@pytest.fixture(scope="module")
def cpp() -> CppFile:
    return CppFile(CPP, "fuse.cc")


def line(text: str, nth: int = 1) -> int:
    """Line of the nth occurrence of a text in CPP."""
    position = -1
    for _ in range(nth):
        position = CPP.index(text, position + 1)
    return CPP.count("\n", 0, position) + 1


@pytest.mark.parametrize(
    ("symbol", "first", "length"),
    [
        ("Fuser", line("class TVM_DLL"), 14),
        ("class Fuser", line("class TVM_DLL"), 14),
        ("relax::Fuser", line("class TVM_DLL"), 14),
        ("Fuser::Fuser", line("explicit Fuser"), 1),
        ("Fuser::Make", line("Fuser Fuser::Make"), 3),
        ("Make", line("Fuser Fuser::Make"), 3),
        ("Fuser::VisitExpr_(TupleNode)", line("Expr VisitExpr_(const Tuple"), 3),
        ("Fuser::VisitExpr_(const CallNode* op)", line("Expr VisitExpr_(const Call"), 1),
        ("Fuser::VisitExpr_#2", line("Expr VisitExpr_(const Tuple"), 3),
        ("Fuser::kName", line("kName"), 1),
        ("Fuser::depth_", line("  int depth_"), 1),
        ("Kind", line("enum class"), 4),
        ("Kind::kInjective", line("kInjective"), 1),
        ("FInfer", line("using FInfer"), 1),
        ("using FInfer", line("using FInfer"), 1),
        ("Pair", line("typedef"), 1),
        ("Twice", line("template <typename T>"), 4),
        ("operator==", line("bool operator=="), 1),
        ("Forward", line("class Forward"), 1),
        ("transform::Fuse", line("Pass Fuse()"), 1),
        ("Fuse#2", line("Expr Fuse("), 1),
        ("Fuse(Expr)", line("Expr Fuse("), 1),
        ('TVM_REGISTER_OP("relax.fuse")', line('TVM_REGISTER_OP("relax.fuse")'), 3),
        ('TVM_REGISTER_OP("relax.fuse_more")', line('TVM_REGISTER_OP("relax.fuse_more")'), 1),
        ("RELAX_REGISTER_UNARY(relu)", line("RELAX_REGISTER_UNARY"), 1),
        ("TVM_FFI_STATIC_INIT_BLOCK", line("TVM_FFI_STATIC_INIT"), 7),
        ('"relax.transform.Fuse"', line('.def("relax.transform.Fuse"'), 1),
        ('"relax.transform.Other"', line('.def("relax.transform.Other"'), 3),
        ('"relax.fuse"', line('TVM_REGISTER_OP("relax.fuse")'), 3),
        ('"fuser"', line("kName"), 1),
        ("#define REGISTER", line("#define REGISTER"), 2),
        ("REGISTER", line("#define REGISTER"), 2),
        ("table", line("int table"), 1),
        ("AfterConditional", line("void AfterConditional"), 1),
    ],
)
def test_cpp_symbol_is_found(cpp: CppFile, symbol: str, first: int, length: int) -> None:
    span = cpp.find(symbol).span
    assert (span.first, len(span)) == (first, length)


def test_ambiguous_cpp_symbol_lists_spellings_that_work(cpp: CppFile) -> None:
    with pytest.raises(AmbiguousSymbol) as caught:
        cpp.find("Fuse")
    message = str(caught.value)
    assert "fuse.cc has 2 of `Fuse`; write one of: `transform::Fuse`" in message
    spellings = [hint.split("`")[1] for hint in caught.value.hints]
    assert [cpp.find(one).span.first for one in spellings] == [line("Pass Fuse()"), line("Expr Fuse(")]


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("Fusser", "fuse.cc has no `Fusser`; did you mean: `Fuser`"),
        ("relu", '`RELAX_REGISTER_UNARY(relu, "nn.relu", /*float=*/false)`'),
        ("Fuse#3", "fuse.cc has 2 of `Fuse`, so there is no #3"),
        ('"relax.ghost"', 'fuse.cc has no `"relax.ghost"`'),
        ("OnlyInAComment", "fuse.cc has no `OnlyInAComment`"),
        ("", "a symbol is expected behind the colon"),
    ],
)
def test_unknown_cpp_symbol_says_what_exists(cpp: CppFile, symbol: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        cpp.find(symbol)
    assert message in str(caught.value)


def test_definition_goes_before_declaration() -> None:
    assert CppFile("void f(int);\nvoid f(int) {\n}\n").find("f").span.first == 2
    assert CppFile("void f(int);\n").find("f").span.first == 1
    assert CppFile("class A;\nclass A {};\n").find("A").span.first == 2


# -- small things ----------------------------------------------------------------------------------


def test_targets_and_titles() -> None:
    assert split_title("the fuser <a/b.cc:X>") == ("the fuser", "a/b.cc:X")
    assert split_title("a/b.cc:Map<K, V>::f") == (None, "a/b.cc:Map<K, V>::f")
    assert split_title("a/b.cc:Map<K,\n V>") == (None, "a/b.cc:Map<K, V>")
    assert split_target("a/b.cc:N::f") == ("a/b.cc", "N::f")
    assert split_target("./a/b.cc") == ("a/b.cc", "")
    assert is_cpp("src/x.cc:F") and is_cpp("include/x.h") and not is_cpp("relax.build") and not is_cpp("a.py:f")


def test_similar_names_are_found_in_other_scopes() -> None:
    assert similar("relax.BlockBuilder.emmit", ["relax.Other.emit", "zzz"]) == ["relax.Other.emit"]
    assert similar("matmul", ["MatMul", "conv"]) == ["MatMul"]


def test_errors_cross_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(AmbiguousSymbol("two", ["a", "b"])))
    assert str(error) == "two; write one of: a, b"


# -- places ----------------------------------------------------------------------------------------


def test_links(wheels: Wheels, tmp_path: Path) -> None:
    places = Places(wheels, tmp_path / "none.json")
    tvm = "https://github.com/apache/tvm/"
    ffi = "https://github.com/apache/tvm-ffi/"
    urls = {
        "relax.vm_build.build": tvm + "blob/v0.27.0.post1/python/tvm/relax/vm_build.py#L3-L7",
        "relax.LIMIT": tvm + "blob/v0.27.0.post1/python/tvm/relax/__init__.py#L12",
        "relax.expr": tvm + "blob/v0.27.0.post1/python/tvm/relax/expr.py",
        "relax/": tvm + "tree/v0.27.0.post1/python/tvm/relax",
        "tvm_ffi.Function": ffi + "blob/v0.1.14-post1/python/tvm_ffi/cython/function.pxi#L5-L7",
    }
    for target, url in urls.items():
        assert places.python(target).url() == url
    assert places.cpp("src/runtime/vm.cc:VM").url() == tvm + "blob/v0.27.0.post1/src/runtime/vm.cc#L3-L6"
    assert places.cpp("tvm_ffi/include/tvm/ffi/any.h:Any").url().startswith(ffi + "blob/v0.1.14-post1/include/tvm/ffi/")
    assert places.cpp("tvm_ffi/include/dlpack/dlpack.h:DLTensor").url() == "https://github.com/apache/tvm-ffi"
    pinned = Places(wheels, tmp_path / "none.json", "abc123456")
    assert "/blob/abc123456/" in pinned.python("relax.build").url()


def test_unknown_cpp_place_names_the_command(wheels: Wheels, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"run `make symbols TVM=path/to/checkout`"):
        Places(wheels, tmp_path / "none.json").cpp("src/ir/op.cc:Op")
    with pytest.raises(SourceError, match=r"has no file .*did you mean: `tvm_ffi/include/tvm/ffi/any.h`"):
        Places(wheels, tmp_path / "none.json").cpp("tvm_ffi/src/any.h:Any")


# -- the index and its command ---------------------------------------------------------------------

OLD = "class Fuser {\n  int a;\n};\nvoid Run() {}\n"
NEW = "// moved down\n" + OLD.replace("Run() {}", "Run() { go(); }")


def git(repo: Path, *args: str) -> str:
    identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = os.environ | identity | {f"GIT_{who}_DATE": "2026-01-02T03:04:05Z" for who in ("AUTHOR", "COMMITTER")}
    done = subprocess.run(["git", "-C", str(repo), *args], env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare clone with tags v1 and v2, a branch that is also called v1, and a branch main."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    write_tree(work, {"src/fuse.cc": OLD})
    git(work, "add", "."), git(work, "commit", "-q", "-m", "one"), git(work, "tag", "v1")
    write_tree(work, {"src/fuse.cc": NEW, "src/new.cc": "void Added() {}\n"})
    git(work, "add", "."), git(work, "commit", "-q", "-m", "two"), git(work, "tag", "v2")
    git(work, "branch", "v1")  # not the commit of the tag
    bare = tmp_path / "tvm.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    return bare


PAGE = """\
# Page

Fusion is in {tvm-cpp}`src/fuse.cc:Fuser`, {tvm-cpp}`runs
here <src/fuse.cc:Run>`, and {tvm-cpp}`src/new.cc:Added`; the VM in {tvm-cpp}`src/runtime/vm.cc:VM`.

````text
{tvm-cpp}`src/fuse.cc:OnlyAnExample`
```
````

```{note}
All of {tvm-cpp}`src`, once more {tvm-cpp}`src/fuse.cc:Fuser`.
```
"""


@pytest.fixture
def book(tmp_path: Path, wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a book that cites the checkout."""
    monkeypatch.setattr(Wheels, "installed", classmethod(lambda cls: wheels))
    root = tmp_path / "book root"
    write_tree(root, {"book/page.md": PAGE, "gallery/1/a.py": '"""\nTitle\n=====\n\n:tvm-cpp:`src/fuse.cc`\n"""\n'})
    monkeypatch.chdir(root)
    return root


def run(*args: object) -> int:
    return symbols.main([str(one) for one in args])


def test_update_writes_sorted_lines(book: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("update", "--checkout", checkout, "--tag", "v2", "--compare", "v1", "main") == 0
    text = (book / "book/_data/cpp_symbols.json").read_text()
    index = symbol_index.loads(text)
    assert list(index.entries) == ["src", "src/fuse.cc", "src/fuse.cc:Fuser", "src/fuse.cc:Run", "src/new.cc:Added"]
    assert sum('"path"' in row for row in text.splitlines()) == len(index)
    fuser = index.entries["src/fuse.cc:Fuser"]
    assert (fuser.first, fuser.last, fuser.tag) == (2, 4, "v2")
    assert fuser.sha256 == digest("class Fuser {\n  int a;\n};")
    assert fuser.same_in == {"v1": True, "main": True}  # it moved, but reads the same
    assert index.entries["src/fuse.cc:Run"].same_in == {"v1": False, "main": True}
    assert index.entries["src/new.cc:Added"].same_in == {"v1": "absent", "main": True}
    assert index.entries["src"].first == 0
    assert index.refs["v1"] == {"commit": git(checkout, "rev-parse", "refs/tags/v1"), "date": "2026-01-02"}
    assert text == index.dumps()
    out = capsys.readouterr().out
    assert "src/fuse.cc:Run  lines 5-5  (v1 changed, main same)" in out
    assert run("update", "--checkout", checkout) == 0  # tag and refs are those of the index
    assert (book / "book/_data/cpp_symbols.json").read_text() == text
    assert run("check", "--checkout", checkout) == 0
    assert run(checkout) == 0  # the short form of `make symbols`


def test_unused_entries_go_and_check_reports(book: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("update", "--checkout", checkout, "--tag", "v2", "--compare", "v1")
    page = book / "book/page.md"
    page.write_text(page.read_text().replace("src/new.cc:Added", "src/fuse.cc:Run"))
    index = book / "book/_data/cpp_symbols.json"
    index.write_text(index.read_text().replace('"symbol": "Run", "first": 5', '"symbol": "Run", "first": 4'))
    before = index.read_text()
    capsys.readouterr()
    assert run("check", "--checkout", checkout) == 1
    out = capsys.readouterr().out
    assert "src/new.cc:Added: no longer cited" in out
    assert "src/fuse.cc:Run: lines 4-5 -> 5-5" in out
    assert index.read_text() == before
    assert run("update", "--checkout", checkout) == 0
    assert "src/new.cc:Added" not in symbol_index.load(index).entries


def test_a_moved_branch_is_told_but_is_no_failure(
    book: Path, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("update", "--checkout", checkout, "--tag", "v2", "--compare", "main")
    work = tmp_path / "work"
    write_tree(work, {"other.txt": "x"})
    git(work, "add", "."), git(work, "commit", "-q", "-m", "three"), git(work, "push", "-q", str(checkout), "main")
    capsys.readouterr()
    assert run("check", "--checkout", checkout) == 0
    assert "ref main: " in capsys.readouterr().out


def test_unknown_symbol_names_page_and_line(book: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(book, {"book/bad.md": "# Bad\n\nSee {tvm-cpp}`src/fuse.cc:Fusser`\nand {tvm-cpp}`lib/fuse.cc:X`.\n"})
    assert run("update", "--checkout", checkout, "--tag", "v2", "--compare") == 1
    errors = capsys.readouterr().err.splitlines()
    bad = Path("book/bad.md")
    assert errors[0] == f"{bad}:3: src/fuse.cc has no `Fusser`; did you mean: `Fuser` (v2)"
    assert errors[1] == f"{bad}:4: there is no file `lib/fuse.cc`; did you mean: `src/fuse.cc` (v2)"
    assert "src/fuse.cc:Fuser" in symbol_index.load(book / "book/_data/cpp_symbols.json").entries


def test_show_and_add(book: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--checkout", checkout, "--tag", "v1", "--compare", "v2", "--", "src/fuse.cc:Run") == 0
    assert capsys.readouterr().out == "src/fuse.cc:Run  lines 4-4  (v2 changed)\nvoid Run() {}\n"
    index = book / "book/_data/cpp_symbols.json"
    assert not index.exists()
    assert run("add", "--checkout", checkout, "--tag", "v2", "--compare", "v1", "--", "src/fuse.cc:Run") == 0
    assert list(symbol_index.load(index).entries) == ["src/fuse.cc:Run"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("update", "--checkout", "{book}/book"), "is not a git repository"),
        (("update", "--checkout", "/nowhere"), "is not a folder"),
        (("update", "--checkout", "{checkout}", "--tag", "v9"), "has no tag, branch or commit v9"),
        (("update", "--checkout", "{checkout}", "--tag", "v2", "--compare", "-x"), None),
        (
            ("update", "--checkout", "{checkout}", "--tag", "v2", "--compare", "nope"),
            "has no tag, branch or commit nope",
        ),
        (("update", "--checkout", "{checkout}", "--book", "elsewhere"), "there is no folder elsewhere"),
        (("show", "--checkout", "{checkout}", "--tag", "v2", "--compare", "v1", "--", "src/fuse.cc:No"), "has no `No`"),
    ],
)
def test_wrong_use_is_one_line(
    book: Path, checkout: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str | None
) -> None:
    filled = [one.format(book=book, checkout=checkout) for one in args]
    if message is None:  # argparse says it
        with pytest.raises(SystemExit) as caught:
            symbols.main(filled)
        assert caught.value.code == 2
        return
    assert symbols.main(filled) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("symbols: ")
    assert not (book / "book/_data/cpp_symbols.json").exists()


def test_damaged_index_is_said(book: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(book, {"book/_data/cpp_symbols.json": "{"})
    assert run("check", "--checkout", checkout) == 2
    assert "cpp_symbols.json:1 is not an index of C++ symbols" in capsys.readouterr().err


def test_index_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.json"
    index = symbol_index.SymbolIndex("v1")
    assert index.write(path) and not index.write(path)
    before = path.read_text()
    index.tag = "v2"

    def fail(*_args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        index.write(path)
    assert path.read_text() == before and [one.name for one in tmp_path.iterdir()] == ["index.json"]


def test_committed_index_is_well_formed() -> None:
    """The real index: sorted, one entry a line, as the command writes it."""
    path = Path(__file__).resolve().parent.parent / "book/_data/cpp_symbols.json"
    text = path.read_text("utf-8")
    index = symbol_index.loads(text)
    assert text == index.dumps()
    assert all(entry.tag == index.tag for entry in index)
    assert json.loads(text)["about"].startswith("Generated by")
