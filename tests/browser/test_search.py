"""Search, in a real browser: Chinese, names of code, both together; the right page is among the first results.

The books are those that `make html` built. A page may be expected by its beginning, ``5-auto-scheduling/``.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tour

HTML = Path(__file__).resolve().parents[2] / "_build/html"
#: So far down a result may stand.
FIRST = 3

pytestmark = pytest.mark.skipif(not (HTML / "zh_CN/search.html").is_file(), reason="run `make html` first")

CHINESE = {
    "算子融合": "4-operators/fusion",
    "张量中间表示": "2-tir/",
    "自动调度": "5-auto-scheduling/",
    "形状推导": "3-relax/type-inference",
    "虚拟机": "6-runtime/virtual-machine",
    "线程池": "6-runtime/thread-pool",
    "调度原语": "2-tir/primitives",
    "代价模型": "5-auto-scheduling/cost-models",
    "进化搜索": "5-auto-scheduling/search-evolutionary",
    "迁移学习": "5-auto-scheduling/transfer",
    "模式匹配": "3-relax/patterns",
    "规范化": "3-relax/normalisation",
    "符号形状": "3-relax/shapes",
    "合法化": "4-operators/legalisation",
    "代码生成": "4-operators/",
    "远程过程调用": "6-runtime/rpc",
    "分布式运行时": "6-runtime/disco",
    "编译流水线": "1-architecture/pipeline",
    "块构建器": "3-relax/block-builder",
    "Relax 结构信息": "3-relax/structure-information",
    "MetaSchedule 搜索空间": "5-auto-scheduling/search-space",
    "TIR 张量化": "2-tir/primitives-tensorize",
    "LLVM 代码生成": "4-operators/",
}

NAMES = {
    "FuseOps": "3-relax/fuse-ops",
    "relax.BlockBuilder.emit": "3-relax/",
    "call_tir": "3-relax/tir-integration",
    "s_tir.meta_schedule": "5-auto-scheduling/",
    "LegalizeOps": "4-operators/legalisation",
    "tvm.compile": "1-architecture/",
    "compute_at": "2-tir/primitives-blocks",
    "cache_read": "2-tir/primitives-caches",
    "rfactor": "2-tir/primitives-reduction",
    "tensorize": "2-tir/primitives-tensorize",
    "PassContext": "1-architecture/pass-infrastructure",
    "VirtualMachine": "6-runtime/virtual-machine",
    "StructInfo": "3-relax/structure-information",
    "EvolutionarySearch": "5-auto-scheduling/search-evolutionary",
    "match_cast": "3-relax/",
    "te.create_prim_func": "4-operators/topi",
    "BlockBuild": "3-relax/block-builder",
    "ScheduleStat": "2-tir/schedule-state",
    "create_schedule": "2-tir/te-schedule",
    "DLPack": "6-runtime/tensors",
    "auto_scheduler": "5-auto-scheduling/old-to-new",
    "thread pool": "6-runtime/thread-pool",
}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the built book, all editions."""
    with tour.serve(HTML) as base:
        yield base.rstrip("/")


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    """One tab of a browser."""
    page = browser.new_page()
    # The summaries below the results are not needed, and would fetch sixty pages a query.
    page.route("**/*", lambda route: route.abort() if route.request.resource_type == "fetch" else route.continue_())
    yield page
    page.close()


def results(tab: Any, site: str, edition: str, query: str) -> list[str]:
    """The pages that a search finds, best first."""
    tab.goto(f"{site}/{edition}/search.html?q={urllib.parse.quote(query)}")
    tab.wait_for_function("document.querySelector('.search-summary')?.innerText.length > 0")
    found = tab.evaluate("[...document.querySelectorAll('ul.search li > a')].map(a => a.getAttribute('href'))")
    return list(dict.fromkeys(link.split("#")[0].removesuffix(".html") for link in found))


@pytest.mark.parametrize("edition", ["zh_CN", "en"])
@pytest.mark.parametrize(("query", "expected"), CHINESE.items())
def test_chinese_is_found(tab: Any, site: str, edition: str, query: str, expected: str) -> None:
    """Also where the page is still English, and in the English edition: the glossary knows both words."""
    found = results(tab, site, edition, query)
    assert any(page.startswith(expected) for page in found[:FIRST]), found[:8]


@pytest.mark.parametrize("edition", ["en", "zh_CN"])
@pytest.mark.parametrize(("query", "expected"), NAMES.items())
def test_names_of_code_are_found(tab: Any, site: str, edition: str, query: str, expected: str) -> None:
    found = results(tab, site, edition, query)
    assert any(page.startswith(expected) for page in found[:FIRST]), found[:8]


def test_a_single_character_and_nonsense(tab: Any, site: str) -> None:
    assert results(tab, site, "zh_CN", "块")
    assert not results(tab, site, "zh_CN", "饕餮")


def test_scripts_come_after_pages(tab: Any, site: str) -> None:
    found = results(tab, site, "en", "FuseOps")
    scripts = [at for at, page in enumerate(found) if page.startswith("gallery/")]
    assert not scripts or scripts[0] > 2


def test_a_search_works_from_a_folder_on_disk(tab: Any) -> None:
    """Without a server a browser reads the two indexes as scripts."""
    found = results(tab, HTML.as_uri(), "zh_CN", "算子融合")
    assert "4-operators/fusion" in found[:FIRST]
