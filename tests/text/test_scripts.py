"""Captions without spaces between words are noticed, and no others."""

from __future__ import annotations

import pytest

from imgcap.text.scripts import unspaced_note


@pytest.mark.parametrize(
    ("caption", "script"),
    [
        ("两个孩子坐在椅子上\uff0c天气好\uff0c0号", "Chinese"),
        ("小狗奔跑", "Chinese"),
        ("犬が草の上を走っている。", "Japanese"),
        ("イヌガハシッテイル", "Japanese"),
        ("สุนัขกำลังวิ่งบนสนามหญ้า", "Thai"),
        ("ໝາກຳລັງແລ່ນຢູ່ເທິງຫຍ້າ", "Lao"),
        ("ခွေးတစ်ကောင်မြက်ခင်းပေါ်မှာပြေးနေတယ်", "Burmese"),
        ("ឆ្កែកំពុងរត់លើស្មៅ", "Khmer"),
    ],
)
def test_captions_without_spaces_between_words_are_one_sentence(caption: str, script: str) -> None:
    assert unspaced_note(["a dog", caption]) == (
        f"1 of 2 captions have no spaces between words ({script}): the tokeniser takes each run of letters as one "
        "word. Put spaces between the words, or between the characters, first."
    )


@pytest.mark.parametrize(
    "caption",
    [
        "a dog runs",
        "café façade",
        "개가 잔디 위를 달린다",
        "собака бежит по траве",
        "कुत्ता घास पर दौड़ता है",
        "两 个 孩子 坐 在 椅子 上",
        "两个 孩子 坐在 椅子 上",
        "สุนัข กำลัง วิ่ง บน สนาม หญ้า",
        "a sign that says 禁止停车禁止停车 on a wall",
        "狗",
        "",
        "。\uff0c",
    ],
)
def test_captions_with_spaces_between_words_need_no_note(caption: str) -> None:
    assert unspaced_note([caption]) == ""


def test_a_stray_caption_among_many_needs_no_note() -> None:
    assert unspaced_note(["a dog"] * 100 + ["两个孩子坐在椅子上"]) == ""
    assert unspaced_note(["a dog"] * 99 + ["两个孩子坐在椅子上"]) != ""
    assert unspaced_note([]) == ""
