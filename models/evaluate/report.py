"""A report in Markdown that is also readable while it grows on a terminal."""


class Report:
    def __init__(self):
        self.lines = []

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
