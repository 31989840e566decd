"""What the page says before anything else: what was compared, and what was found."""

from __future__ import annotations

from distilbench.analysis.frame import BY_TYPE, OVERALL, StudyFrames, groups, row_names
from distilbench.analysis.inference import Inference
from distilbench.records.record import Record
from distilbench.reporting.cells import number
from distilbench.reporting.findings import HEADS, findings
from distilbench.reporting.notes import counted, smoke_mark, some
from distilbench.reporting.ranking import machine, parameters_of


def facts(study: StudyFrames) -> dict[str, str]:
    """What was compared, by what it is called; from the records of the methods, or of all where there are none."""
    everything = list(study.records.values())
    trained = [record for record in everything if record.role == "method"]
    records = trained or everything
    made = {
        "Methods": _methods(study, trained),
        "Teacher": some({_model(str(r.teacher["name"]), r.teacher) for r in records}),
        "Student": some(_students(study, records)),
        "Text": some({f"{number(r.text['sentences'])} sentences of {r.text['source']}" for r in records}),
        "Budget": some({f"{number(r.budget['amount'])} {r.budget['currency']} for each run" for r in trained}),
        "Heads": some(
            {HEADS[start].removeprefix("heads ") for r in trained if (start := r.train.get("head_start")) in HEADS}
        ),
        "Tasks": ", ".join(
            f"{len(tasks)} of {kind}" for kind, tasks in groups(study.tasks).items() if kind not in (OVERALL, BY_TYPE)
        ),
        "Machine": some({machine(r.environment) for r in records}),
    }
    return {name: text for name, text in made.items() if text}


def _methods(study: StudyFrames, trained: list[Record]) -> str:
    if not trained:
        return "none was trained"
    keys = study.runs["key"][study.runs["role"] == "method"]
    seeds, trials = sorted(set(keys.value_counts())), sorted({int(r.ledger["tuning_trials"]) for r in trained})
    each = " to ".join(str(count) for count in dict.fromkeys([seeds[0], seeds[-1]]))
    tuned = " or ".join("not tuned" if count == 0 else f"tuned by {counted(count, 'training')}" for count in trials)
    return f"{counted(keys.nunique(), 'method')}, {each} seed{'' if seeds[-1] == 1 else 's'} of each, {tuned}"


def _students(study: StudyFrames, records: list[Record]) -> set[str]:
    keys = {str(study.runs.at[record.run_id, "key"]): record for record in records}
    return {
        _model(f"{parameters_of(study, key) / 1e6:.2f}M parameters", record.student) for key, record in keys.items()
    }


def _model(name: str, about: dict[str, object]) -> str:
    parts = [f"{about[key]} {word}" for key, word in (("layers", "layers"), ("width", "wide")) if key in about]
    return f"{name} ({', '.join(parts)})" if parts else name


def found(study: StudyFrames, inference: Inference) -> list[str]:
    """Sentences derived from the verdicts; or why there are none."""
    if sentences := findings(study, inference):
        return sentences
    if smoke_mark(study):
        return ["A smoke run shows that everything works. Its scores say nothing of the methods."]
    if not row_names(study, "method"):
        return ["No student was trained, so there is nothing to compare."]
    if study.scores.empty:
        return ["No run was completed, so there is nothing to compare. The reasons are below, under Runs."]
    return ["No two rows were scored on the same examples, so no difference between them is judged."]


def lost_runs(study: StudyFrames) -> str | None:
    """How many runs have no scores; None where all have some."""
    lost = study.runs[study.runs["status"] != "completed"]
    if lost.empty:
        return None
    parts = "; ".join(f"{row} ({counted(count, 'run')})" for row, count in lost["row"].value_counts(sort=False).items())
    return f"{len(lost)} of {counted(len(study.runs), 'run')} did not complete: {parts}. Means are of the others alone."
