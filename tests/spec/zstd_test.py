#!/usr/bin/env python3
"""The second reader's own Zstandard decoder against frames made by the reference program (1.5.4)."""

import base64
import random
import unittest

import zstd

# name: (content, frame in base 85)
FRAMES = {
    "one_byte": (
        lambda: b'x',
        'D77#BAOQ&g0C)'),
    "run_of_one_byte": (
        lambda: bytes(70000),
        'D77#Bpl}fZ096105C8xH0BaFBzyb'),
    "counted_text": (
        lambda: b''.join(b'line %d of the text, ' % (i * i) for i in range(400)),
        'D77#BU_m4e8vvSP^a>V`CxslqdMx!d`v1yliELRR{E!*b1Frz40Hy$PPCC=omD+hNA0LOMA!PXH9oP!Tpfqk~wfA-o'
        'PN;dK%c`o0lB7*j`Km{u?wHqgH<UKx+i;5?LRu6)Q-)cjuI$L?9fHsfJ)^T#B7F{}KedFAzIwl%F-YFDj+c%J72dC@'
        '!emLNR&mjrP;~sAI&3U?l(u*H6w<PfN^O?DPUj2`LOYz&S*6Zpd@MrxcRNbk)UQM6y&C{1I6zP^AP`V62w-5K0YQNQ'
        '1Oo5y>x|TyA4&-y1&b}D{UCQp`;Jm+-8gE-J9Lyn(eo~@8cmfXb@D6zn(;b9jl<z(sK=XHn#Uk*$o=|KA#0iVG|I&s'
        'D3z<&@y?jTCA1u<IRB1(<)zOoQ*u5NEE0qa{`eNR^mvgh8%q7Yt|KZ`y%1NUT1-PpIFZ$Nd0tGYIfCA*p17Gy{upod'
        'JB;5Eax4!Yhq7T_knYv)gwNSwL}+n{rRFe=n>LkZnG1Pe=6+}+jKR{psnpY#bvT3yue@dzH(8SOsjp@(j^`j$aMbTe'
        'P1(58I!d(X9rVM5oW=S`Q_AO$)LAEV7|vjaS!i*PoYKx?ZAj-FEN36i5+tO8@85gt88?!{MxhqJvO`2D@uZhpNlXe!'
        'IEj_)(mat+vP1srwai8%IgAUfeb2r{NU?-|*m7cykj}O2e5cGo6Iu?FoFNl0RYxud*~TK2#X*s`mD(Yjp-7{QF=<6|'
        'hj;%}$f>2FAG_tH^Q2PS)zQwd=h%f<g;pKraqiKHiPa&bJLWmcN_^ayJVM9_zl=L9S}n#<NIo|+tT%icxCo|DrWeA?'
        'W%c01pd{opW3}<BxP?!s&k?iNVfDQYJ;}21UCZv4*gl+)oJF?JXeG5-F6pC{qmBffw-#s#Epm8uM%8g>RcHZ$kf;$L'
        '5R1I-Z_%f85hMhk5X|8ZDHA|6DknfGA}4@IBxQh5L?!`|NJ@aBh)e(}k(2<TSpUMkim^(iBJvF1HA?z5((}Ct{@$13'
        '@4YbSeXk>*@BNDSeeY^+iof?fYje&OXTJNjkJo;D{nKT&Z{Eat=8u>zo$&GUrI$;cbv?`3%rX|H_{G+<hAqpyEC*W_'
        '?Lf8y7%*AD0aO('),
    "skewed_bytes": (
        lambda: bytes(min(255, (i * 2654435761 % 2**32).bit_length() ** 2 // 9) for i in range(3000)),
        'D77#BV7Ll31pq_?0C8k-YF%+^adBjEYFBY;adAszQE_TTWI9VxMR8qZYF9u}HAO%=OF%J2KubDHKt(!BOsG-zuzv=?'
        'lcWO@0I>)dlE7gIAO>a#7>wXgGJ}LhAO*CA18Vl4N=nAHDh+<8tg?v>cVpc66%EobYNI-QPO-=h7;YO;<ExaTRsby7'
        'ijm<rZ|#__&f|%k{6&;V*99@S2nvU)QTAOE45UaE'),
    "skewed_short": (
        lambda: bytes((i * i * 7 + i // 3) % 11 for i in range(300)),
        'D77#BU@QPt0RR*N00#yM0{{U83JD4W015#I1Ox~J0RsmE0|g2Q2ml8K1_1y;AgX!-'),
    "repeats": (
        lambda: b''.join((b'alpha', b'beta', b'gamma')[i * i % 3] + bytes([i % 7]) for i in range(900)),
        'D77#BV89Wz0RX^ZY;b5{0AgiyVF6-gbYTJm1O)~H1px#Tpb%gG4Y1=jO)__=Z4uMprbU)p6q){l#YSi;'),
}


class Frames(unittest.TestCase):
    def test_content(self):
        for name, (content, text) in FRAMES.items():
            with self.subTest(frame=name):
                expected = content()
                self.assertEqual(zstd.decompress(base64.b85decode(text), len(expected)), expected)

    def test_wrong_size_is_refused(self):
        for name, (content, text) in FRAMES.items():
            for wrong in (-1, 1):
                with self.subTest(frame=name), self.assertRaises(zstd.ZstdError):
                    zstd.decompress(base64.b85decode(text), len(content()) + wrong)

    def test_every_truncation_is_refused(self):
        for name, (content, text) in FRAMES.items():
            frame, size = base64.b85decode(text), len(content())
            for length in range(0, len(frame), 1 + len(frame) // 200):
                with self.subTest(frame=name, length=length), self.assertRaises(zstd.ZstdError):
                    zstd.decompress(frame[:length], size)

    def test_flipped_bits_end_in_an_error_or_in_bytes(self):
        chance = random.Random(1)
        for name, (content, text) in FRAMES.items():
            frame, size = base64.b85decode(text), len(content())
            for _ in range(40):
                damaged = bytearray(frame)
                damaged[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
                try:
                    self.assertEqual(len(zstd.decompress(damaged, size)), size, name)
                except zstd.ZstdError:
                    pass


if __name__ == "__main__":
    unittest.main()
