"""Every way a stored notebook can be wrong without an execution: one line that says how to mend."""

import json

import pytest
from press_book import reproduce

from reproductions.press.drift import check_chapter


def edit_source(book, name, before, after):
    path = book.chapters_folder / f"{name}.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def edit_notebook(book, name, change):
    path = book.chapters_folder / f"{name}.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook, [c for c in notebook["cells"] if c["cell_type"] == "code"])
    path.write_text(json.dumps(notebook))


def only_problem(book, name):
    problems = check_chapter(book.chapter(name))
    assert len(problems) == 1, problems
    line = str(problems[0])
    assert "\n" not in line
    return line


def test_a_built_book_has_no_problem(built):
    assert [check_chapter(c) for c in built.chapters()] == [[], []]


def test_an_edited_comment(book):
    edit_source(book, "beta", "print(triple", "# three times\nprint(triple")
    line = only_problem(book, "beta")
    assert "chapters/beta.ipynb, cell 3 of 4 (`from minilib.slow import triple`)" in line
    assert "differs from beta.py" in line
    assert line.endswith("run `reproduce build beta`")
    assert not check_chapter(book.chapter("alpha"))


def test_source_carried_over_without_executing_keeps_old_outputs_and_is_noticed(book):
    # what `jupytext --sync` does: cells agree, outputs are of the code before
    edit_source(book, "beta", "triple(seed + 1)", "triple(seed + 2)")

    def carry_over(notebook, code):
        from reproductions.press.notebook import read_source

        for old, new in zip(
            notebook["cells"], read_source(book.chapter("beta")).cells, strict=True
        ):
            old["source"], old["id"] = new.source, new.id

    edit_notebook(book, "beta", carry_over)
    assert "outputs are of an earlier beta.py" in only_problem(book, "beta")


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("slow/inner.py", "minilib.slow.inner"),
        ("slow/__init__.py", "minilib.slow"),
        ("slow/factors.csv", "minilib/slow/factors.csv"),
    ],
)
def test_an_edited_kernel_touches_only_the_chapters_that_import_it(book, file, module):
    path = book.src / "minilib" / file
    path.write_text(path.read_text() + "# edited\n")
    line = only_problem(book, "beta")
    assert f"outputs are of an earlier state of {module}; run `reproduce build beta`" in line
    assert not check_chapter(book.chapter("alpha"))


def test_other_pinned_versions(book):
    book.requirements.write_text("numpy==2.4.7\n")
    assert "other versions than requirements.lock pins" in only_problem(book, "beta")
    book.requirements.write_text("# a comment is no version\nnumpy==2.4.6\n")
    assert not check_chapter(book.chapter("beta"))


def test_a_reordered_cell(book):
    def swap(notebook, code):
        cells = notebook["cells"]
        cells[2], cells[3] = cells[3], cells[2]

    edit_notebook(book, "beta", swap)
    assert "stands in another place than in beta.py" in only_problem(book, "beta")


def test_a_cell_that_was_never_executed(book):
    def forget(notebook, code):
        code[1]["execution_count"] = None
        code[1]["outputs"] = []

    edit_notebook(book, "beta", forget)
    line = only_problem(book, "beta")
    assert "cell 2 (`from minilib.slow import triple`): was never executed" in line


def test_cells_executed_out_of_order(book):
    edit_notebook(book, "beta", lambda n, code: code[1].update(execution_count=7))
    assert "was executed as number 7, not 2" in only_problem(book, "beta")


def test_missing_outputs(book):
    edit_notebook(book, "beta", lambda n, code: code[1].update(outputs=[]))
    assert "its outputs are missing" in only_problem(book, "beta")


def test_an_edited_output(book):
    edit_notebook(book, "beta", lambda n, code: code[1]["outputs"][0].update(text="4\n"))
    assert "its outputs were edited" in only_problem(book, "beta")


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


def shown(text):
    return {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["no"]}


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (ERROR, "has an error output (ValueError)"),
        (stream("stderr", "UserWarning: careful\n"), "writes to stderr ('UserWarning: careful')"),
        (stream("stdout", "saved in /home/ada/x.npy\n"), "this machine (/home/ada/x.npy)"),
        (shown("<module at 'C:\\Users\\ada\\m.py'>"), "this machine (C:\\Users\\ada\\m.py)"),
        (shown("lib/python3.11/site-packages/numpy"), "site-packages/numpy)"),
        (
            {"output_type": "display_data", "metadata": {}, "data": {"image/png": "aGk="}},
            "a picture without a data summary",
        ),
        (
            {
                "output_type": "display_data",
                "metadata": {},
                "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}},
            },
            "shows a widget",
        ),
    ],
    ids=["error", "stderr", "home", "drive", "site-packages", "picture", "widget"],
)
def test_an_output_that_may_not_be_stored(book, output, what):
    edit_notebook(book, "beta", lambda n, code: code[1].update(outputs=[output]))
    line = only_problem(book, "beta")
    assert what in line
    assert "cell 2 (`from minilib.slow import triple`)" in line


def test_addresses_and_fractions_are_no_paths(book):
    text = "see https://example.org/home/page, half is 1/2, either/or, </tmp>"
    edit_notebook(book, "beta", lambda n, code: code[1].update(outputs=[shown(text)]))
    # the digest still notices the edit, and nothing calls it a path
    assert "its outputs were edited" in only_problem(book, "beta")


@pytest.mark.parametrize("where", ["both files", "the notebook"])
def test_a_tag_that_is_not_on_the_list(book, where):
    if where == "both files":
        edit_source(book, "beta", "# %%\nfrom", '# %% tags=["nbval-ignore-output"]\nfrom')
    else:
        tag = {"tags": ["nbval-ignore-output"]}
        edit_notebook(book, "beta", lambda n, code: code[1].update(metadata=tag))
    line = only_problem(book, "beta")
    assert "has the tag nbval-ignore-output, which is not on the list" in line
    assert "allowed are exercise, face, full-width" in line


def test_a_comment_that_nbval_obeys(book):
    edit_source(book, "beta", "print(triple", "# NBVAL_IGNORE_OUTPUT\nprint(triple")
    assert "has the comment NBVAL_IGNORE_OUTPUT" in only_problem(book, "beta")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ('device = "auto"', "", "sets profile, seed; it must set exactly profile, seed and device"),
        ("seed = 0", "seed = int(0)", "has `seed = int(0)`, which sets no plain literal"),
        ("seed = 0", "seed = 0\nwidth = 3", "sets profile, seed, width, device; it must set"),
        ('profile = "cpu"', 'profile = "fast"', "one of smoke, cpu, paper as profile"),
        ("seed = 0", "seed = True", "an integer as seed"),
        ('# %% tags=["parameters"]', "# %%", "0 cells are tagged parameters"),
    ],
)
def test_a_wrong_parameters_cell(book, before, after, what):
    edit_source(book, "beta", before, after)
    line = only_problem(book, "beta")
    assert what in line
    assert "write one cell" in line


def claims_of(code):
    mime = "application/vnd.reproductions.claims+json"
    return [o["data"][mime] for c in code for o in c["outputs"] if mime in o.get("data", {})]


def test_a_table_edited_only_where_the_reader_looks(book):
    def edit(notebook, code):
        data = code[-1]["outputs"][0]["data"]
        data["text/html"] = "".join(data["text/html"]).replace("Tripling triples", "It doubles")

    edit_notebook(book, "beta", edit)
    line = only_problem(book, "beta")
    assert "claims: the HTML is not what its data render to" in line
    assert "It doubles" in line


def test_no_complete_table(book):
    edit_notebook(book, "beta", lambda n, code: code[-1].update(outputs=[]))
    lines = [str(p) for p in check_chapter(book.chapter("beta"))]
    assert any("has 0 complete claims tables; a chapter has exactly one" in x for x in lines)


def rendered(data):
    from reproductions.chapter.claims import CLAIMS_MIME, render_html, render_text

    bundle = {CLAIMS_MIME: data, "text/html": render_html(data), "text/plain": render_text(data)}
    return {"output_type": "display_data", "metadata": {}, "data": bundle}


def restamp(notebook, code):
    """As if the notebook had been built with these outputs."""
    import nbformat

    from reproductions.press.notebook import output_digest

    for cell in code:
        outputs = [nbformat.from_dict(o) for o in cell["outputs"]]
        notebook["metadata"]["repro"]["outputs"][cell["id"]] = output_digest(outputs)


def tamper_claims(book, change):
    def edit(notebook, code):
        (data,) = claims_of(code)
        outputs = change(data)
        code[-1]["outputs"] = outputs if outputs is not None else [rendered(data)]
        restamp(notebook, code)

    edit_notebook(book, "beta", edit)


def test_two_complete_tables(book):
    tamper_claims(book, lambda data: [rendered(data), rendered(data)])
    assert "has 2 complete claims tables" in only_problem(book, "beta")


def test_the_table_of_another_chapter(book):
    tamper_claims(book, lambda data: data.update(chapter="gamma"))
    assert "its claims say they are of chapter 'gamma'" in only_problem(book, "beta")


def test_a_part_that_contradicts_the_whole(book):
    def contradict(data):
        part = json.loads(json.dumps(data)) | {"complete": False}
        part["rows"][0]["because"] = "no wish"
        return [rendered(part), rendered(data)]

    tamper_claims(book, contradict)
    assert "claim C1 reads otherwise in the complete table" in only_problem(book, "beta")


def test_a_verdict_against_its_criterion(book):
    m = {"label": "x", "value": 3.0, "unit": "", "paper": None, "n_seeds": None, "spread": None}
    m |= {"drift": {"abs": 0.0, "rel": 0.0}}
    m |= {"criterion": {"kind": "interval", "text": "< 1", "high": 1.0, "open": True}}

    def upgrade(data):
        data["rows"][0] |= {"verdict": "reproduced", "measurements": [m | {"met": False}]}

    tamper_claims(book, upgrade)
    assert "is called reproduced with some criterion not met" in only_problem(book, "beta")


def test_a_drift_that_reaches_the_edge_of_its_criterion(book):
    m = {"label": "x", "value": 0.95, "unit": "", "paper": None, "n_seeds": None, "spread": None}
    m |= {"criterion": {"kind": "interval", "text": "< 1", "high": 1.0, "open": True}}

    def widen(data):
        row = {"verdict": "reproduced", "measurements": [m | {"met": True, "drift": drift}]}
        data["rows"][0] |= row

    drift = {"abs": 0.1, "rel": 0.0}
    tamper_claims(book, widen)
    assert "a drift of 0.1 reaches the edge of the criterion (< 1)" in only_problem(book, "beta")


def test_a_row_that_was_not_re_run_may_not_be_stored(book):
    def skip(data):
        data["rows"][0]["verdict"] = "stored, not re-run here"

    tamper_claims(book, skip)
    line = only_problem(book, "beta")
    assert "claim C1 reads 'stored, not re-run here' in the stored book" in line


def test_a_skipped_output_may_not_be_stored(book):
    from reproductions.chapter.datasets import SKIPPED_MIME, skipped_html, skipped_text

    data = {"schema": 1, "dataset": "table", "claims": [], "message": "Skipped: no table."}
    bundle = {
        SKIPPED_MIME: data,
        "text/html": skipped_html(data),
        "text/plain": skipped_text(data),
    }
    output = {"output_type": "display_data", "metadata": {}, "data": bundle}
    edit_notebook(book, "beta", lambda n, code: code[1].update(outputs=[output]))
    line = only_problem(book, "beta")
    assert "was skipped for want of a data set (Skipped: no table.)" in line
    assert "build where the data set can be had" in line


def test_foreign_metadata(book):
    edit_notebook(book, "beta", lambda n, code: n["metadata"].update(widgets={}))
    assert "its metadata differ" in only_problem(book, "beta")


def test_no_notebook_a_broken_one_and_a_broken_source(book):
    notebook = book.chapter("beta").notebook
    notebook.write_text("{")
    assert "is no notebook file" in only_problem(book, "beta")
    notebook.unlink()
    assert "chapters/beta.ipynb: does not exist" in only_problem(book, "beta")
    edit_source(book, "beta", "print(triple(seed + 1))", "print(")
    assert "no valid Python" in only_problem(book, "beta")


def test_the_command_reports_each_line_and_fails(book):
    assert reproduce("check", "--root", book.root).exit_code == 0
    edit_source(book, "beta", "print(triple", "# three times\nprint(triple")
    result = reproduce("check", "--root", book.root)
    assert result.exit_code == 1
    assert result.stderr.count("failed:") == 1
    data = json.loads(reproduce("check", "--json", "--root", book.root).stdout)
    assert {row["chapter"]: row["ok"] for row in data} == {"alpha": True, "beta": False}
