"""The instructions of a kernel's loops, as the machine code is listed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs"))

from count_instructions import loops_of

LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
                                                                  /* 0x00000a0000017a02 */
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0020*/               @P1 BRA 0x60 ;
        /*0030*/                   IMMA.16832.S8.S8 R4, R8.ROW, R10.COL, R4 ;
        /*0040*/                   IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4 ;
        /*0050*/               @P0 BRA 0x10 ;
        /*0060*/                   FADD R3, R3, R4 ;
        /*0070*/               @P2 BRA 0x60 ;
        /*0080*/                   EXIT ;
"""


def test_a_loop_with_products() -> None:
    """From where the branch back goes to the branch; one without products is left out."""
    (loop,) = loops_of(LISTING)
    assert len(loop.instructions) == 5
    assert loop.products == 2
    assert loop.between_branches() == [2, 3]
