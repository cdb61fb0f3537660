"""What images cost before and after an attack."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from robustbench_aig.report import text
from robustbench_aig.report.figures import style
from robustbench_aig.report.figures.style import AFTER, BEFORE
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.report.tables import attack_of


@style.figure(
    "compute",
    "Multiply-adds before and after the attack: the share of images that take at most so many.",
    of=lambda run: run.telling,
)
def compute(run: Run, curves: Sequence[Curve]) -> Figure:
    """Distribution of multiply-adds per image before and after the attack, one panel per model and gating."""
    figure, axes = style.panels(curves)
    for curve, place in zip(curves, axes, strict=True):
        row = curve.strongest
        samples = run.samples(row["cell"], ["eps_label", "macs_clean", "macs_adv"])
        samples = samples[samples["eps_label"] == row["eps_label"]]
        for column, colour, width in (("macs_clean", BEFORE, 4.0), ("macs_adv", AFTER, 1.6)):
            place.ecdf(samples[column].to_numpy(), color=colour, linewidth=width)
            place.axvline(samples[column].mean(), color=colour, linewidth=0.4 + 0.5 * width, linestyle=(0, (3, 1.5)))
        style.percent_axis(place, 1.02)
        place.xaxis.set_major_locator(MaxNLocator(6))
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.macs(value)))
        style.two_lines(place, curve.contestant, attack_of(curve))
        place.set_xlabel("multiply-adds per image")
    axes[0].set_ylabel("images at or below, %")
    handles = [
        Line2D([], [], color=BEFORE, linewidth=4.0, label="before the attack"),
        Line2D([], [], color=AFTER, linewidth=1.6, label="after"),
        Line2D([], [], color=style.GREY, linewidth=1.4, linestyle=(0, (3, 1.5)), label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5)
    return figure
