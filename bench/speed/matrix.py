"""A whole matrix, ours and theirs: the teacher over the text, all methods trained with all seeds, all models scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from distilbench.evaluation.tasks.by_name import Task
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.prepare.inputs import make_inputs
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import prepare
from distilbench.runs.progress import Watch
from distilbench.runs.study_run import run_part
from speed import rival
from speed.clock import Race, Work, race
from speed.setting import SEED, Setting
from speed.training import BEST, METHODS, OURS, best_settings, rival_of

SEEDS = [SEED, SEED + 1]

Scores = dict[str, float]


def compare_matrix(setting: Setting, tasks: list[Task]) -> tuple[Race, float]:
    """Three methods with two seeds, beside the teacher and the untrained student, on tasks that are loaded already.

    Theirs is a script in sentence-transformers that is as frugal: the teacher runs over the text once, what is not
    trained is scored once. Also the largest difference of a main score of the teacher, as a fraction.
    """
    found = race(
        {OURS: lambda _: _ours(setting, tasks), BEST: lambda _: _theirs(setting, tasks)}, setting.options.rounds
    )
    ours, theirs = found.gave[OURS][-1], found.gave[BEST][-1]
    return found, max(abs(ours[task.name] - theirs[task.name]) for task in tasks)


def _ours(setting: Setting, tasks: list[Task]) -> Work:
    study = setting.inputs(list(METHODS.values()), name="whole", seeds=SEEDS, tasks=[task.name for task in tasks]).study

    def work() -> Scores:
        with TemporaryDirectory() as folder:
            settings = replace(setting.settings, out=Path(folder) / "out", cache=Path(folder) / "cache")
            inputs = replace(make_inputs(study, settings), tasks=lambda: tasks)
            preflight(inputs)
            (runs,) = prepare([inputs])
            records = [item.record for item in run_part(runs, in_this_process, Watch())]
        if failed := [record.error or record.status for record in records if record.status != "completed"]:
            raise RuntimeError(f"a run of the matrix did not complete: {failed[0]}")
        (teacher,) = (record for record in records if record.role == "ceiling")
        return {name: scores["main_score"] for name, scores in teacher.scores.items()}

    return work


def _theirs(setting: Setting, tasks: list[Task]) -> Work:
    instances = [task.instance for task in tasks]
    inputs = {method: setting.inputs([METHODS[method]]) for method in METHODS}
    trainings = {method: rival_of(setting, inputs[method], method) for method in METHODS}

    def work() -> Scores:
        teacher = rival.load(setting.teacher.folder, setting.device)
        labels = rival.encode(teacher, setting.sentences)
        scores = rival.plain_scores(teacher, instances)
        rival.plain_scores(rival.load(setting.student_folder, setting.device), instances)
        for number in range(len(SEEDS)):
            for method, (training, make_loss) in trainings.items():
                known = replace(training, labels=None if training.labels is None else labels)
                train = known.contestant(make_loss, **best_settings(setting, inputs[method]))
                rival.plain_scores(train(number)(), instances)
        return scores

    return work
