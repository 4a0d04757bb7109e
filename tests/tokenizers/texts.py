"""Texts that tokenizers get wrong."""

HARD = (
    "",
    " ",
    "Hello, world!",
    "  two  and   three    blanks \t tabs\t\t and\n\n\n line ends \n ",
    "\r\n windows\r\n\r\nline ends\r old mac\r\r",
    "I'm you're we've he'd they'll it's 'tis O'Brien's I’m DON'T we'RE",
    "0 1 12 123 1234567890 3.14 1,000,000 ½ ² ٣٤ १२३ 1st x86_64",
    "日本語のテキスト、中文文本。한국어 텍스트",
    "😀👍🏽👨‍👩‍👧‍👦🇯🇵 text ☃️ zwj\u200d zwnj\u200c bom\ufeff",
    "e\u0301 é Z\u0351\u036a\u0362a\u0321l\u034bgo हिन्दी ภาษาไทย עִבְרִית",
    "\x00\x01\x1b[31m\x7f\x85\xa0\u2028\u2029\u3000\ufffd\uffff\U0010ffff",
    "a" * 3000 + " " + "ab" * 1500,
    "<|endoftext|> and <|im_start|>user<|im_end|> </s> <pad>",
    "def f(x):\n    return x**2  # comment\n\n\n\tif True: pass\n",
    "https://example.org/a?b=c&d=%20#e https:// ... !!! ??? ---- ====",
    "ﬁ ligature ﷽ Ａ full width ẞ ß İ ı",
    " leading\nlines\n ends. \n next\n\u00a0x\n\x1cy",
)
"""Blanks, line ends, contractions, digits, scripts, emoji, combining marks, control characters, long words, names of
special tokens.
"""
