"""What vectors are like beside their scores: near the teacher's, spread out, robust to compression, fast."""

from __future__ import annotations

import pandas as pd

from distilbench.analysis.frame import StudyFrames, over_seeds
from distilbench.reporting.cells import DASH
from distilbench.reporting.formats.render import Table
from distilbench.reporting.tables.scores import TableBuilder

COLUMNS = {
    "cosine": ("Cosine to teacher", 1.0, 3),
    "cka": ("CKA", 1.0, 3),
    "neighbours": ("Neighbours@10", 1.0, 3),
    "similarities": ("Rank corr. of cosines", 1.0, 3),
    "anisotropy": ("Anisotropy", 1.0, 3),
    "uniformity": ("Uniformity", 1.0, 2),
    "alignment": ("Alignment", 1.0, 3),
    "sts": ("STS", 100.0, 1),
    "sts_1/2": ("1/2 of width", 100.0, 1),
    "sts_1/4": ("1/4 of width", 100.0, 1),
    "sts_int8": ("int8", 100.0, 1),
    "sts_binary": ("Binary", 100.0, 1),
    "sts_asymmetric": ("Asymmetric", 100.0, 1),
    "parameters": ("Parameters (M)", 1e-6, 2),
    "bytes": ("MB on disk", 1e-6, 1),
    "sentences_per_second": ("Sentences/s", 1.0, 0),
    "query_ms": ("Query (ms)", 1.0, 1),
}
"""Name in the record -> heading, factor, decimals."""
INDEX = "{} on the teacher's index"


def vector_table(study: StudyFrames) -> Table | None:
    """Means over seeds; None when no record holds any of it."""
    completed = {run_id: record for run_id, record in study.records.items() if record.status == "completed"}
    asymmetric = {
        run_id: {INDEX.format(task): value for task, value in record.vectors.get("asymmetric", {}).items()}
        for run_id, record in completed.items()
    }
    indexes = sorted({name for names in asymmetric.values() for name in names})
    columns = COLUMNS | {name: (name, 100.0, 1) for name in indexes}
    measured = {
        run_id: {**record.vectors.get("values", {}), **asymmetric[run_id], **record.speed}
        for run_id, record in completed.items()
    }
    values = pd.DataFrame.from_dict(measured, orient="index").reindex(columns=list(columns)).dropna(axis=1, how="all")
    if values.empty:
        return None
    means = over_seeds(study.runs, values).mean.reindex(study.rows.index).dropna(how="all")
    builder = TableBuilder(study, means.index)
    for name in values:
        heading, factor, decimals = columns[str(name)]
        order = means[name] * factor
        builder.add(heading, order.map(lambda value, d=decimals: DASH if pd.isna(value) else f"{value:,.{d}f}"), order)
    sizes = sorted({record.vectors["sentences"] for record in study.records.values() if record.vectors})
    notes = [
        f"Means over seeds, on {' / '.join(map(str, sizes))} fixed sentences that come with distilbench and are in no "
        "task but its own STS set. The teacher's row is the teacher beside itself.",
        "Cosine, and asymmetric STS (one sentence of a pair by the student, the other by the teacher), are there where "
        "the widths are equal. Of uniformity and alignment less is better; anisotropy is the mean cosine of two.",
        "STS and what follows: Spearman x100 with the gold scores, of whole vectors, of their first components, with "
        "components in 8 bits, and with their signs alone. 200 pairs: compare within a row, not between methods.",
        "Speed is that of the machine that ran the study, whatever else it was doing; weights on disk are fp32.",
    ]
    if indexes:
        notes.append(
            "On the teacher's index: the task's main score x100 with queries by the student and documents by the "
            "teacher. The student's score on its own index is in the table of tasks."
        )
    return builder.table("vectors", "the vectors themselves", notes)
