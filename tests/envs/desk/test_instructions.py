import itertools
from collections import Counter

import numpy as np
import pytest

from envs.desk import instructions
from envs.desk.grammar import CALVIN_TASKS, COLORS, TASK_NAMES, frames, phrases
from envs.desk.instructions import CALVIN, SPLITS, nearest, paraphrases, parse, sample, tasks
from envs.desk.meaning import Meaning, normalise


def block(task, color):
    return Meaning(task=task, color=color, object="block")


def test_there_are_calvins_34_tasks_each_with_seen_and_heldout_wordings():
    assert len(CALVIN_TASKS) == len(set(CALVIN_TASKS)) == 34
    for task in TASK_NAMES:
        heldout = [phrase.heldout for phrase in phrases(task)]
        assert any(heldout)
        assert not all(heldout)


def test_no_plain_sentence_stands_under_two_tasks():
    of = Counter(text for task in TASK_NAMES for text in {normalise(phrase.text) for phrase in phrases(task)})
    assert of.most_common(1)[0][1] == 1


def test_every_plain_sentence_means_its_task_and_colour():
    for task in TASK_NAMES:
        for phrase in phrases(task):
            meaning = parse(phrase.text)
            assert meaning.task == task, phrase.text
            named = next((color for color in COLORS if f"_{color}_" in task), "")
            assert meaning.color == named, phrase.text
    for task in ("place_in_drawer", "place_in_slider", "push_into_drawer", "stack_block", "place_block"):
        for phrase in phrases(task, "blue"):
            if "blue" in phrase.text:
                assert (parse(phrase.text).task, parse(phrase.text).color) == (task, "blue"), phrase.text


def test_politeness_and_distractors_change_no_meaning():
    for task in TASK_NAMES:
        plain = phrases(task)
        for phrase in plain[:: len(plain) // 2]:
            for dressed in frames(phrase.text, heldout=True):
                assert parse(dressed.text).task == task, dressed.text


@pytest.mark.slow
def test_everything_that_the_grammar_can_say_has_one_meaning():
    said: dict[str, str] = {}
    for task in CALVIN_TASKS:
        if "blue" in task or "pink" in task:  # the same patterns as red
            continue
        for phrase in phrases(task):
            for dressed in frames(phrase.text, heldout=True):
                assert said.setdefault(normalise(dressed.text), task) == task
                assert parse(dressed.text).task == task, dressed.text
    assert len(said) > 150_000


def test_rules_understand_every_human_paraphrase():
    human = instructions.load(CALVIN)
    assert set(human) == set(CALVIN_TASKS)
    wrong = []
    for task, sentence in ((task, s) for task, sentences in human.items() for s in sentences):
        if parse(sentence).task != task:
            wrong.append((sentence, parse(sentence).task, task))
    assert wrong == []


def test_human_sentences_join_the_grammars_and_have_heldout_ones_too():
    human = instructions.load(CALVIN)
    assert set(paraphrases("open_drawer")) < set(paraphrases("open_drawer", human=human))
    count = {split: 0 for split in ("seen", "paraphrase")}
    for task, split in itertools.product(tasks("seen"), count):
        texts = set(paraphrases(task, split, human=human))
        count[split] += len(texts & set(human.get(task, ())))
    assert 0.1 < count["paraphrase"] / sum(count.values()) < 0.3
    rng = np.random.default_rng(0)
    drawn = [sample("open_drawer", rng, human=human) for _ in range(60)]
    assert set(drawn) & set(human["open_drawer"]) - set(paraphrases("open_drawer"))


def test_splits_change_one_thing_only():
    seen = {normalise(text) for task in tasks("seen") for text in paraphrases(task, "seen")}
    words = {word for text in seen for word in text.split()}
    heldout = {normalise(text) for task in tasks("paraphrase") for text in paraphrases(task, "paraphrase")}
    assert not seen & heldout
    for split in ("color", "object", "composition"):
        assert not set(tasks(split)) & set(tasks("seen"))
        new = {
            w for task in tasks(split) for text in paraphrases(task, split) for w in normalise(text).split()
        }
        assert new - words <= {"yellow", "purple", "bowl", "cup", "mug"}, split
    for task in tasks("composition"):  # verb and object each occur in training
        verb, color = task.split("_")[0], next(color for color in COLORS if color in task)
        assert any(name.startswith(verb) for name in tasks("seen"))
        assert any(color in name for name in tasks("seen"))
    assert set(tasks("seen")) | set(tasks("composition")) == {*CALVIN_TASKS, "place_block"}


@pytest.mark.parametrize("split", SPLITS)
def test_samples_are_of_their_split_and_mean_their_task(split):
    rng = np.random.default_rng(0)
    for task in tasks(split):
        for _ in range(5):
            assert parse(sample(task, rng, split)).task == task


def test_a_sample_is_a_function_of_the_generator():
    def draw(seed):
        return [sample("open_drawer", np.random.default_rng(seed)) for _ in range(3)]

    assert draw(1) == draw(1)
    assert len({sample("stack_block", np.random.default_rng(i)) for i in range(50)}) > 30


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Put the red block in the drawer!", block("place_in_drawer", "red")),
        ("turn on the light bulb", Meaning(task="turn_on_lightbulb")),
        (
            "Could you pick the red block up from inside the drawer, please?",
            block("lift_red_block_drawer", "red"),
        ),
        (
            "don't touch the pink block and put the red block on the blue one",
            Meaning(task="stack_block", color="red", object="block", reference="blue"),
        ),
        ("push the mug left", Meaning(task="push_mug_left", object="mug")),
        ("turn the yellow block right", block("rotate_yellow_block_right", "yellow")),
        ("pull the drawer shut", Meaning(task="close_drawer")),
        ("switch the led off", Meaning(task="turn_off_led")),
        ("turn the green cube anti-clockwise", block("rotate_green_block_left", "green")),
    ],
)
def test_free_wordings(text, meaning):
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turn on the light", "which light.*LED"),
        ("push the button", "on or off"),
        ("turn the red block on its side", "left or right"),
        ("push the red block left and right", "say one direction"),
        ("lift the red and the blue block", "say one colour"),
        ("lift the block", "which block.*red, blue, pink"),
        ("open the drawer and close it", "open and close"),
        ("lift the red block, then close the drawer", "several things.*lift_red_block_table"),
        ("open the drawer and put the red block in it", "several things"),
        ("do not lift the red block", "nothing that can be done"),
        ("put the red block on the table", "nothing that can be done"),
        ("", "nothing that can be done"),
    ],
)
def test_open_or_contradictory_instructions_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_unknown_words_are_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"'blok' \(nearest: block.*'drawr' \(nearest: drawer"):
        parse("put the red blok in the drawr")


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("put the red blok in the drawr", "place_in_drawer"),
        ("illuminate the bulb, turn it on", "turn_on_lightbulb"),
        ("opn the drawer", "open_drawer"),
        ("swich on the lite bulb", "turn_on_lightbulb"),
        ("lift the block off the stack", "unstack_block"),
    ],
)
def test_nearest_guesses(text, task):
    meaning, sentence = nearest(text)
    assert meaning.task == task
    assert parse(sentence) == meaning


def test_a_guess_is_a_sentence_that_one_would_say():
    assert nearest("turn on the lite bulb")[1] == "turn on the light bulb"


def test_users_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("open_drawer: ['Sesame!']\nturn_on_led: ['make it shine']\n")
    human = instructions.load(path)
    assert parse("sesame", human=human) == Meaning(task="open_drawer")
    assert paraphrases("turn_on_led", "seen", human=human)[-1] == "make it shine"
    with pytest.raises(ValueError, match="unknown word 'sesame'"):
        parse("sesame")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("open_drawr: ['open it']", "mine.yaml: task='open_drawr'.*did you mean 'open_drawer'"),
        ("open_drawer: []", "open_drawer: expected a list of sentences"),
        ("open_drawer: open it", "expected a list of sentences"),
        (
            "open_drawer: ['go']\nclose_drawer: ['Go!']",
            "'Go!' stands under open_drawer and under close_drawer",
        ),
        ("- open_drawer", "expected `task:"),
        ("{", "mine.yaml"),
    ],
)
def test_a_bad_yaml_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        instructions.load(path)


def test_bad_arguments(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no.yaml"):
        instructions.load("no.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"open_drawer: [\xff]")
    with pytest.raises(ValueError, match=r"latin\.yaml"):
        instructions.load(tmp_path / "latin.yaml")
    with pytest.raises(ValueError, match="did you mean 'open_drawer'"):
        paraphrases("open_drawr")
    with pytest.raises(ValueError, match="split='sene'.*did you mean 'seen'"):
        sample("open_drawer", rng, "sene")
    with pytest.raises(ValueError, match="not of split 'seen'.*but of 'composition'"):
        sample("push_blue_block_left", rng)
    with pytest.raises(ValueError, match="target='rad'.*'red'"):
        paraphrases("place_in_drawer", target="rad")
