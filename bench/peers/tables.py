"""Rows of the comparison and the Markdown they are kept in. Standard library only."""

HEAD = ["| method | stands for | bytes | bits per changed element | fraction of dense | encode GB/s"
        " | decode GB/s | peak MiB | exact |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|"]


class Row:
    def __init__(self, name, title, stands_for="this library"):
        self.name, self.title, self.stands_for = name, title, stands_for
        self.size = self.encode_speed = self.decode_speed = self.mebibytes = None
        self.exact = None
        self.failure = None


def row_line(row, facts, pairs):
    if row.failure:
        return f"| {row.title} | {row.stands_for} | | | | | | | {row.failure.replace('|', '/')} |"
    bits = f"{8 * row.size / facts['changed']:.3f}" if facts["changed"] else "-"
    return (f"| {row.title} | {row.stands_for} | {round(row.size / pairs):,} | {bits}"
            f" | {row.size / facts['dense']:.5f} | {row.encode_speed:.3g} | {row.decode_speed:.3g}"
            f" | {row.mebibytes:.0f} | {'yes' if row.exact else 'NO'} |")


def section(heading, rows, facts, pairs, repeat):
    """Lines of one data set; bytes are means over its pairs, facts are sums over them."""
    changed = f"{facts['changed'] / pairs:,.0f} words changed per pair"
    return [f"## {heading}", "",
            f"{pairs} pair{'s' if pairs > 1 else ''} of {facts['dense'] / pairs / 2**20:,.1f} MiB in"
            f" {facts['tensors'] // pairs} tensors; {changed}"
            f" ({100 * facts['changed'] / facts['words']:.3f} %); medians of {repeat}.", "",
            *HEAD, *(row_line(row, facts, pairs) for row in rows)]


def title_of(line):
    return line.split("|")[1].strip() if line.startswith("| ") else None


def merged(text, lines):
    """The document with this section in it: rows measured again replace those of the same title.

    The sentence above the table stays that of the first run.
    """
    old = text.split("\n")
    if lines[0] not in old:
        return text.rstrip("\n") + "\n" * (2 if text.strip() else 0) + "\n".join(lines) + "\n"
    start = old.index(HEAD[1], old.index(lines[0])) + 1
    end = start
    while end < len(old) and title_of(old[end]):
        end += 1
    rows = {title_of(line): line for line in old[start:end]}
    for line in lines[lines.index(HEAD[1]) + 1:]:
        rows[title_of(line)] = line
    return "\n".join(old[:start] + list(rows.values()) + old[end:])
