"""The live canvas: what the model is writing, while it writes it.

    from dgemma.visual import CanvasView
    with CanvasView(console, tokenizer) as view:
        for event in engine.generate(tokens):
            view.show(event)

A canvas is drawn in place while it is denoised; when it is finished, its frame gives way to its text, which is ordinary
output that scrolls and can be copied. On anything but a terminal only the text appears. ``canvas_html`` draws one step
for a notebook. ``python -m dgemma.visual`` shows both without a model.

``glyphs`` makes bytes safe to draw, ``cells`` decides what each position looks like, ``layout`` breaks lines,
``status`` words the first line, ``frame`` puts these together; none of them writes anything. ``screen`` alone knows the
codes of terminals, and ``view`` decides when to draw.
"""

from .notebook import canvas_html
from .view import CanvasView

__all__ = ["CanvasView", "canvas_html"]
