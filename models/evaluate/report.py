"""A report in Markdown that is also readable while it grows on a terminal."""


class Report:
    def __init__(self):
        self.lines = []
        #: Rows of the table of what was asked for and reached.
        self.reached = []

    def heading(self, text, level=2):
        self.write("", f"{'#' * level} {text}", "")

    def table(self, columns):
        self.row(columns)
        self.row(["---"] * len(columns))

    def row(self, cells):
        self.write("| " + " | ".join(str(cell) for cell in cells) + " |")

    def text(self, text):
        self.write("", text)

    def write(self, *lines):
        for line in lines:
            self.lines.append(line)
            print(line, flush=True)

    def asked(self, what, reached, floor, aim=None, *, most=False):
        """Sets `reached` against `floor` and `aim`, of which one may be `None`: the least that is wanted, with `most` the largest that is allowed."""
        reached, keeps = float(reached), lambda limit: limit is not None and (reached <= limit if most else reached >= limit)
        verdict = "aim" if keeps(aim) else "floor" if keeps(floor) else "missed"
        sign = "≤" if most else "≥"
        floor, aim = ("" if limit is None else f"{sign} {limit:g}" for limit in (floor, aim))
        self.reached.append([what, floor, aim, f"{reached:.4g}", verdict])

    def summary(self):
        """The table of what was asked for, as lines."""
        of_it = Report()
        of_it.heading("Asked for and reached")
        of_it.table(["what", "floor", "aim", "reached", "kept"])
        for row in self.reached:
            of_it.row(row)
        return of_it.lines
