import json


def test_targets_are_listed_with_where_they_come_from(qm, site):
    (site / "board.toml").write_text('summary = "mine"\n')
    found = json.loads(qm("targets", "--json", QM_TARGETS=str(site)).stdout)
    rows = {row["name"]: row for row in found["targets"]}
    assert {"host", "cortex-m", "edgetpu", "x86-avx2"} <= rows.keys()
    assert rows["board"] == {"name": "board", "from": str(site), "summary": "mine"}


def test_a_broken_file_is_named_below_the_others(qm, site):
    (site / "board.toml").write_text("flash = -1\n")
    told = qm("targets", QM_TARGETS=str(site))
    assert told.returncode == 0
    assert "broken: target" in told.stdout and "'flash'" in told.stdout
    assert "cortex-m" in told.stdout


def test_what_is_known_of_a_target_is_shown_and_what_is_not(qm):
    told = qm("targets", "cortex-m").stdout
    assert "TensorFlow Lite Micro" in told
    assert "CONV_2D" in told
    assert any(line.split() == ["flash", "not", "known"] for line in told.splitlines())


def test_a_target_that_is_not_there_is_one_sentence_and_a_hint(qm):
    told = qm("targets", "cortex-n")
    assert told.returncode == 2
    assert told.stderr == (
        "error: there is no target 'cortex-n'\nhint:  Did you mean 'cortex-m'? The targets are: host, arm-dotprod, "
        "arm-neon, cortex-m, edgetpu, x86-avx2, x86-vnni.\n"
    )
