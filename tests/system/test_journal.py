from unmixer_core.system.journal import JsonLines


def test_records_come_back_in_order(tmp_path):
    lines = JsonLines(tmp_path / "new folder" / "records.jsonl")
    assert list(lines.read()) == []
    lines.append({"a": 1})
    lines.append({"b": "é\u2028"})
    assert list(lines.read()) == [{"a": 1}, {"b": "é\u2028"}]
    assert lines.path.read_bytes().count(b"\n") == 2


def test_a_line_cut_short_is_left_out_and_the_next_record_is_whole(tmp_path):
    path = tmp_path / "records.jsonl"
    JsonLines(path).append({"a": 1})
    with path.open("a") as file:
        file.write('{"b": ')
    again = JsonLines(path)
    assert list(again.read()) == [{"a": 1}]
    again.append({"c": 3})
    again.append({"d": 4})
    assert list(again.read()) == [{"a": 1}, {"c": 3}, {"d": 4}]
    assert path.read_text() == '{"a": 1}\n{"b": \n{"c": 3}\n{"d": 4}\n'
