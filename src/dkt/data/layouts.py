"""The public formats of one answer a line: what their columns are called, and what they hold beside answers.

Column names follow the course's files and ASSISTments' documentation (sites.google.com/site/assistmentsdata).
"""

from __future__ import annotations

from collections.abc import Sequence

from dkt.data.columns import Layout

COURSE = Layout(
    "CSV with userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag; answerCode is 0, 1, or -1 where it is "
    "to be predicted; several skills of one question stand in one cell: 12;45",
    student="userID",
    question=("assessmentItemID",),
    answer="answerCode",
    asks="-1",
    skills="KnowledgeTag",
    separator=";",
    time="Timestamp",
    extra={"test": "testId"},
    keep_further=True,
)

ASSIST2009 = Layout(
    "ASSISTments 2009-2010 skill builder (order_id,user_id,problem_id,skill_id,correct,...); rows with the same "
    "order_id, one a skill, are merged",
    student="user_id",
    question=("problem_id",),
    answer="correct",
    partial_credit=True,
    skills="skill_id",
    separator="_",  # the collapsed edition: 279_280
    skill_missing=True,
    order="order_id",
    one_answer="have the order_id of the row before",
    elapsed=("ms_first_response", 1e-3),
    lossy=True,
)

ASSIST2012 = Layout(
    "ASSISTments 2012-2013 (problem_log_id,user_id,problem_id,skill_id,start_time,correct,...)",
    student="user_id",
    question=("problem_id",),
    answer="correct",
    partial_credit=True,
    skills="skill_id",
    separator="_",
    skill_missing=True,
    time="start_time",
    elapsed=("ms_first_response", 1e-3),
    lossy=True,
)

ASSIST2015 = Layout(
    "ASSISTments 2015 (user_id,log_id,sequence_id,correct); it has no question ids, sequences are the skills",
    student="user_id",
    answer="correct",
    partial_credit=True,
    skills="sequence_id",
    order="log_id",
)

ASSIST2017 = Layout(
    "ASSISTments 2017 competition (studentId,problemId,skill,correct,startTime,...)",
    student="studentId",
    question=("problemId",),
    answer="correct",
    partial_credit=True,
    skills="skill",
    skill_missing=True,
    time="startTime",
    seconds_per_unit=1,
    elapsed=("timeTaken", 1),
    lossy=True,
)

LAYOUTS = {
    "course": COURSE,
    "assist2009": ASSIST2009,
    "assist2012": ASSIST2012,
    "assist2015": ASSIST2015,
    "assist2017": ASSIST2017,
}


def layout_of_header(header: Sequence[str]) -> str | None:
    """The format whose columns a header has; the course's for any of its own, so that missing ones can be named."""
    names = set(header)
    for name, layout in LAYOUTS.items():
        if names >= set(layout.needs):
            return name
    return "course" if names & set(COURSE.needs) else None
