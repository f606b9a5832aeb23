"""What a file of answers holds, and every way in which it would flatter a model."""

from __future__ import annotations

import numpy as np

from dkt.data.merge import merge_repeats
from dkt.data.table import TO_PREDICT, Answers


def describe(answers: Answers, other: Answers | None = None) -> dict[str, object]:
    """Counts, and the leaks found; `other` is a second part (a test file) that should share no student."""
    known = answers.answer != TO_PREDICT
    found: dict[str, object] = {
        "students": answers.n_students,
        "answers": len(answers),
        "to_predict": int((~known).sum()),
        "right": round(float(answers.answer[known].mean()), 4) if known.any() else None,
        "skills": len(answers.skill_names),
        "questions": len(answers.question_names) if answers.question is not None else None,
        "skills_per_row": round(float(answers.skills_per_row.mean()), 3),
        "length_median": int(np.median(answers.lengths)),
        "length_max": int(answers.lengths.max(initial=0)),
        "has_times": answers.time is not None,
    }
    leaks = []
    if answers.question is not None:
        merged = merge_repeats(answers)
        found["repeats"], found["contradicting"] = merged.repeats, merged.contradicting
        if merged.repeats:
            share = merged.repeats / len(answers)
            leaks.append(
                f"{merged.repeats:,} rows ({share:.1%}) ask the question of the row before, and "
                f"{merged.repeats - merged.contradicting:,} of them repeat its answer: quote the leak-free figures, "
                "or merge the rows (--merge)"
            )
    if other is not None:
        shared = set(answers.student_names) & set(other.student_names)
        found["students_shared"] = len(shared)
        if shared:
            leaks.append(
                f"{len(shared):,} student ids are in both files, for example {min(shared)}: if they are the same "
                "students, a model has seen their answers (line formats without ids number students from 0)"
            )
        if answers.question is not None and other.question is not None:
            new = set(other.question_names) - set(answers.question_names)
            found["questions_only_in_other"] = len(new)
    found["leaks"] = leaks
    return found
