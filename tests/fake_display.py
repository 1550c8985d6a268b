"""A matplotlib backend for the tests: says when a window would open."""
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas  # noqa: F401 (matplotlib asks for it)
from matplotlib.backend_bases import FigureManagerBase as FigureManager  # noqa: F401


def show(*args, **kwargs):
    print('A WINDOW')
