"""Catalogs of translations: how they follow their page, and what the check finds in them."""

from __future__ import annotations

import polib
import pytest

from tvm_deepdive_helpers.maintain import messages


def entry(english: str, chinese: str, comment: str = "") -> polib.POEntry:
    return polib.POEntry(msgid=english, msgstr=chinese, tcomment=comment)


def found(english: str, chinese: str, comment: str = "", markdown: bool = True) -> list[str]:
    """Rules that a message breaks."""
    return [rule for rule, _text in messages.check_entry(entry(english, chinese, comment), markdown)]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("A *tensor* is an array.", "*张量*是一个数组。"),
        ("`T.grid` stands for {glue}`n` loops.", "`T.grid` 表示 {glue}`n` 层循环。"),
        ("See {doc}`/0-start/setup`, then run it.", "先看{doc}`/0-start/setup`，然后运行。"),
        ("See {doc}`the set-up </0-start/setup>`.", "参见{doc}`安装 </0-start/setup>`。"),
        ("About 50 % of the operators (of TVM).", "约 50% 的算子（TVM 的）。"),
        ("TVM Deep Dive", "TVM Deep Dive"),
        ("The module after `LegalizeOps`: what is new?", "`LegalizeOps` 之后的模块：有什么新东西？"),
        ("Read [the list](https://example.org/a), it is short.", "请读[这份清单](https://example.org/a)，它不长。"),
        ("What {tvm-cpp}`src/a.cc:Foo` does", "{tvm-cpp}`src/a.cc:Foo` 做了什么"),
        ("It is called “lowering”.", "它叫“降级”。"),
        ("One: two; three.", "一：二；三……"),
        ("{index}`fusion <single: fusion>` merges operators.", "{index}`融合 <single: 融合>`把算子合并起来。"),
    ],
)
def test_good_translations_pass(english: str, chinese: str) -> None:
    assert found(english, chinese) == []


@pytest.mark.parametrize(
    ("english", "chinese", "rule"),
    [
        ("A loop.", "", "untranslated"),
        ("Here {glue}`n` loops.", "这里有若干循环。", "spans"),
        ("Here {glue}`n` loops.", "这里有 {glue}`m` 层循环。", "spans"),
        ("The name `split`.", "名字 `Split`。", "spans"),
        ("See {doc}`/a/b`.", "见 B。", "spans"),
        ("%d lines more", "还有几行", "spans"),
        ("Read [this](https://example.org).", "请读[这个](https://example.com)。", "spans"),
        ("Three words here.", "Three words here.", "english"),
        ("One, two.", "一,二。", "punctuation"),
        ("The end.", "结束.", "punctuation"),
        ("A word (this one) here.", "一个词(就是它)在此。", "punctuation"),
        ('The word "big".', '这个词"大"。', "punctuation"),
        ("Wait …", "等等...", "punctuation"),
        ("TVM compiles it.", "TVM编译它。", "spacing"),
        ("It has 8 rows.", "它有8行。", "spacing"),
        ("The name `x` here.", "这里的名字`x`。", "spacing"),
        ("A loop, then the end.", "循环， 然后结束。", "spacing"),
        ("A loop is here.", "循环 在此。", "spacing"),
        ("operator fusion", "运算合并", "terms"),
        ("You see it.", "您看见它。", "address"),
        ("The name `a`.", "名字 `a。", "markup"),
        ("A list.", "- 清单", "markup"),
        ("A *word*.", "一个*词。", "markup"),
    ],
)
def test_each_rule_finds_its_fault(english: str, chinese: str, rule: str) -> None:
    assert rule in found(english, chinese)


def test_a_word_that_is_no_term_is_excepted_by_a_comment() -> None:
    english, chinese = "They pass the argument.", "它们传递参数。"
    assert found(english, chinese) == ["terms"]
    assert found(english, chinese, "terms: pass") == []


def test_a_term_counts_once_by_its_longest_name() -> None:
    assert found("The pass context holds.", "遍上下文有效。") == []
    assert found("The pass context holds.", "上下文有效。") == ["terms"]


def test_a_catalog_follows_its_page() -> None:
    old = messages.merge(None, ["Keep this sentence.", "Change this long sentence a little.", "Go away for ever."])
    for item, text in zip(old, ["保留这句。", "把这个长句稍微改一下。", "走开。"], strict=True):
        item.msgstr = text
    new = messages.merge(old, ["A new one about pipes.", "Change this long sentence a bit.", "Keep this sentence."])
    assert [item.msgid for item in new] == [
        "A new one about pipes.",
        "Change this long sentence a bit.",
        "Keep this sentence.",
    ]
    fresh, changed, kept = new
    assert fresh.msgstr == "" and not fresh.fuzzy
    assert changed.fuzzy and changed.msgstr == "把这个长句稍微改一下。"
    assert changed.previous_msgid == "Change this long sentence a little."
    assert kept.msgstr == "保留这句。" and not kept.fuzzy
    assert "走开" not in str(new)
    assert messages.count(new) == messages.Count(total=3, translated=1, changed=1)
    assert [rule for rule, _text in messages.check_entry(changed)] == ["changed"]


def test_a_changed_message_that_changes_again_keeps_the_english_of_its_translation() -> None:
    first = messages.merge(None, ["One two three four five."])
    first[0].msgstr = "一二三四五。"
    second = messages.merge(first, ["One two three four six."])
    third = messages.merge(second, ["One two three four seven."])
    assert third[0].previous_msgid == "One two three four five."


def test_merging_again_changes_nothing() -> None:
    once = messages.merge(None, ["A “quoted” line with \\ and `code`.", "Another."])
    again = messages.merge(polib.pofile(str(once)), [item.msgid for item in once])
    assert str(again) == str(once)


def test_catalogs_are_well_formed() -> None:
    """Not that they are complete: who reads only one language can change a page. `make release-check` demands that."""
    problems = messages.check(progress=False)
    assert not problems, "\n".join(map(str, problems))


def test_finished_pages_have_catalogs() -> None:
    have = messages.catalogs()
    missing = [page for page in messages.finished_pages() if page not in have]
    assert not missing, f"book/locale/zh_CN/complete.txt names pages without a catalog: {missing}"
