"""The worker as a process of its own, against a stand-in for the trainer."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from trainer import HERE, ROOT, Trainer, WorkerError

FLAGS = ['reward', 'is_first', 'is_last', 'is_terminal']


def until(condition, seconds=2):
  end = time.time() + seconds
  while time.time() < end:
    if condition():
      return True
    time.sleep(0.02)
  return False


def alive(pid):
  try:
    with open(f'/proc/{pid}/stat') as f:
      return f.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_steps_and_end(tmp_path):
  mark = tmp_path / 'closed'
  with Trainer('py:envs:Echo', seed=7, kwargs={'mark': str(mark)}) as t:
    image = t.answer['obs']['image']
    assert (image['dtype'], image['shape'], image['offset'] % 64) == ('uint8', [64, 64, 3], 0)
    assert t.answer['act']['action'] == {
        'dtype': 'int32', 'shape': [], 'low': 0, 'high': 5, 'offset': 4}
    assert t.answer['stride'] % 64 == 0
    obs = t.step(action=3)
    assert obs['is_first'] and obs['reward'] == 0 and obs['seed'] == 7
    assert (obs['image'].ravel() == np.arange(64 * 64 * 3).astype(np.uint8)).all()
    obs = t.step(action=3)
    assert not obs['is_first'] and obs['reward'] == 3
    assert t.close() == 0
    assert mark.read_text() == 'closed\n' and t.log() == ''
  with Trainer('py:envs:Clumsy', slots=2, kwargs={'mark': str(mark)}) as t:
    assert t.close() == 0
    assert mark.read_text().count('closed\n') == 3  # That one cannot does not keep another from it.


def test_slots_are_environments_of_one_process():
  with Trainer('py:envs:Echo', slots=3, seed=7) as t:
    obs = t.ask([2, 0, 1])
    assert [int(obs[i]['seed']) for i in range(3)] == [7, 8, 9]
    assert len({int(obs[i]['pid']) for i in range(3)}) == 1
    assert list(t.ask([1])) == [1]
    t.ask([0, 2])


def test_prints_do_not_disturb():
  with Trainer('py:envs:Echo', kwargs={'fault': 'prints'}) as t:
    for _ in range(5):
      t.step(action=1)
    assert t.close() == 0
    for word in ('from the environment', 'to descriptor 1', 'from a child'):
      assert f'a word {word}\n' in t.log()


@pytest.mark.parametrize('fault, words', [
    ('shape', ["'image'", 'uint8 (32, 64, 3)', 'uint8 (64, 64, 3)']),
    ('dtype', ["'image'", 'float64', 'uint8']),
    ('range', ["'image'", 'from -1 to 254']),
    ('lacks', ["lacks the key 'image'", 'seed']),
    ('undeclared', ["'height', which obs_space lacks", "'log/height'"]),
    ('none', ["'seed'", 'NoneType', 'float32 ()']),
    ('array', ['returned a list']),
    ('text', ["'log/text' is a str and no number"]),
    ('raises', ['RuntimeError: the engine stopped']),
    ('exits', ['SystemExit']),
    ('dies', ['the process ended']),
])
def test_faults(fault, words, tmp_path):
  mark = tmp_path / 'closed'
  with Trainer('py:envs:Echo', kwargs={'fault': fault, 'mark': str(mark)}) as t:
    t.step(action=1)
    t.step(action=1)
    with pytest.raises(WorkerError) as e:
      t.step(action=1)
    for word in words:
      assert word in e.value.args[0]['error']
    assert t.process.wait(5) == (3 if fault == 'dies' else 1)
    assert mark.exists() == (fault != 'dies')
    if fault == 'raises':
      assert 'Traceback' in t.log() and 'in raises' in t.log() and 'closed' not in t.log()


def test_environments_that_were_made_before_one_failed_are_closed(tmp_path):
  mark = tmp_path / 'closed'
  with pytest.raises(WorkerError, match='there is one robot only'):
    Trainer('py:envs:second_is_missing', slots=2, kwargs={'mark': str(mark)})
  assert mark.exists()


def test_environments_that_step_together_answer_for_all():
  with Trainer('py:envs:Few', slots=2) as t:
    t.ask([0, 1])
    with pytest.raises(WorkerError) as e:
      t.ask([0, 1])
    assert '2 environments that step together returned 1 observations' in e.value.args[0]['error']


def test_answers_before_a_fault_are_sent():
  with Trainer('py:envs:second_raises', slots=2) as t:
    t.ask([0, 1])
    t.ask([0, 1])
    t.send(b'\0\1')
    assert t.recv() == b'\0'
    with pytest.raises(WorkerError, match='the engine stopped'):
      t.recv()


@pytest.mark.parametrize('task, error, cure', [
    ('nope_task', "unknown suite 'nope'", None),
    ('gym_Nope-v0', "no environment 'Nope-v0'", None),
    ('py:envs', 'py:MODULE:FUNCTION', None),
    ('py:no_module_of_this_name:f', "no module 'no_module_of_this_name'", None),
    ('py:none.py:f', "no file 'none.py'", None),
    ('py:envs:nope', "no function or class called 'nope'", None),
    ('py:envs:nothing', 'is no environment', None),
    ('py:envs:needs', "No module named 'a_package_that_is_missing'", None),
    ('py:envs:vector', 'set --env.slots 3, and --run.envs to a multiple', None),
    ('py:needs_missing.inner:f', "No module named 'a_package_that_is_missing'", None),
    ('py:envs.inner:f', "no module 'envs.inner'", None),
    ('gym_', 'Malformed', None),
    ('gym_needs_missing:X-v0', "No module named 'a_package_that_is_missing'", None),
])
def test_handshake_errors(task, error, cure):
  kwargs = {'slots': 3} if task == 'py:envs:vector' else {}
  with Trainer(task, start=False, kwargs=kwargs) as t:
    with pytest.raises(WorkerError) as e:
      t.begin(1)
    assert error in e.value.args[0]['error']
    assert e.value.args[0].get('cure') == cure
    assert t.process.wait(5) == 1


def test_numbers_of_the_log():
  with Trainer('py:envs:Echo', kwargs={'fault': 'logs'}) as t:
    logs = [{key: x for key, x in t.step().items() if key.startswith('log/')} for _ in range(4)]
    assert logs == [{}, {}, {'log/one': 1, 'log/two': 2}, {}]
  with Trainer('py:envs:Echo', kwargs={'fault': 'flood'}) as t:
    obs = [t.step() for _ in range(3)][-1]
    assert obs['log/000'] == 1 / 3 and 'log/499' not in obs
    assert "'log/499' is left out" in t.log()


def test_an_error_of_the_users_program_shows_its_line():
  for task, plain in [('py:envs:Moody', False), ('py:envs:nope', True)]:
    with Trainer(task, start=False, kwargs={'fault': 'reset'}) as t:
      with pytest.raises(WorkerError) as e:
        t.begin(1)
      assert e.value.args[0]['log'] != plain
      assert ("{}['nobody']" in t.log() and 'envs.py' in t.log()) != plain


@pytest.mark.parametrize('fault, words', [
    ('none', "observation 'vector' holds a NoneType; its space says float32 (2,)"),
    ('size', "observation 'vector' holds float32 (5,); its space says float32 (2,)"),
    ('nan', "observation 'vector' holds nan, which is no finite number"),
    ('far', 'values from 1001.0 to 1001.0, outside the bounds 0.0 to 1000.0')])
def test_the_first_observation_is_checked_at_the_start(fault, words):
  with Trainer('py:envs:Moody', start=False, kwargs={'fault': fault}) as t:
    with pytest.raises(WorkerError) as e:
      t.begin(1)
    assert words in e.value.args[0]['error'] and not e.value.args[0]['log']


@pytest.mark.parametrize('fault, words', [
    ('prizes', 'step returned the reward [1.0, 2.0], but it has to be a number'),
    ('few', 'step returned 3 values, but has to return observation, reward, terminated, truncated and info')])
def test_what_a_step_returns_is_checked(fault, words):
  with Trainer('py:envs:Moody', kwargs={'fault': fault}) as t:
    t.step(action=1)
    with pytest.raises(WorkerError) as e:
      t.step(action=1)
    assert words in e.value.args[0]['error']


@pytest.mark.parametrize('task, words', [
    ('py:envs:Moody', "'envs:Moody' cannot be called with --env.kwargs.NAME VALUE as given: Moody"),
    ('gym_CartPole-v1', "takes no argument 'nope' (env.kwargs.nope): ")])
def test_arguments_that_do_not_exist(task, words):
  with Trainer(task, start=False, kwargs={'nope': 1}) as t:
    with pytest.raises(WorkerError) as e:
      t.begin(1)
    assert words in e.value.args[0]['error'] and 'nope' in e.value.args[0]['error']


def test_options_that_do_not_reach_an_environment_are_refused():
  with Trainer('py:envs:Echo', start=False, options={'repeat': 2}) as t:
    with pytest.raises(WorkerError, match='give it arguments of its own'):
      t.begin(1)


@pytest.mark.parametrize('options, words', [
    ({'size': [64]}, 'env.py.size is [64], but'), ({'size': [0, 64]}, 'two whole numbers above 0'),
    ({'size': [6.5, 7]}, 'two whole numbers'), ({'size': 'big'}, 'two whole numbers'),
    ({'repeat': 0}, 'env.py.repeat is 0, but'), ({'repeat': 1.5}, 'whole number of 1 or more'),
    ({'size': [0, 0], 'repeat': 2.0}, None), ({'size': [64.0, 32]}, None)])
def test_options_are_checked(options, words):
  with Trainer('py:envs:Moody', start=False, options=options) as t:
    if words is None:
      t.begin(1)
    else:
      with pytest.raises(WorkerError) as e:
        t.begin(1)
      assert words in e.value.args[0]['error']


def test_missing_package_has_a_cure():
  code = ('import sys; sys.modules["gymnasium"] = None; '
          'from dreamer_envs.worker import main; main()')
  with Trainer('gym_CartPole-v1', start=False, command=[sys.executable, '-c', code]) as t:
    with pytest.raises(WorkerError) as e:
      t.begin(1)
    assert e.value.args[0]['cure'] == 'pip install gymnasium'


def test_end_before_the_handshake():
  with Trainer('py:envs:Echo', start=False) as t:
    assert t.close() == 0


def test_an_environment_alone_is_closed():
  ask = json.dumps({'task': 'py:envs:Echo', 'seed': 0, 'index': 0})
  done = subprocess.run([sys.executable, '-m', 'dreamer_envs', '--alone', ask], cwd=HERE, text=True,
                        capture_output=True, input='0.1\n', env={**os.environ, 'PYTHONPATH': ROOT})
  ready, rate = done.stdout.split()
  assert done.returncode == 0 and ready == 'ready' and float(rate) > 100
  assert done.stderr.endswith('closed\n')


def test_started_by_hand():
  done = subprocess.run([sys.executable, '-m', 'dreamer_envs'], cwd=ROOT, capture_output=True,
                        stdin=subprocess.DEVNULL, text=True)
  assert done.returncode == 1 and 'waits for a trainer at its pipes' in done.stderr
  for text in ('', 'no JSON\n'):
    done = subprocess.run([sys.executable, '-m', 'dreamer_envs'], cwd=ROOT, capture_output=True,
                          input=text, text=True)
    assert done.returncode == 1 and 'waits for a trainer at its pipes' in done.stderr


def test_started_by_an_older_trainer():
  ours, theirs = socket.socketpair()
  with ours, theirs:
    done = subprocess.run([sys.executable, '-m', 'dreamer_envs'], cwd=ROOT, capture_output=True,
                          stdin=theirs, text=True)
  assert done.returncode == 1 and 'the trainer is older than this package' in done.stderr


@pytest.mark.parametrize('lifeline', [None, 2, 10, 11, 12, 99, 'three'])
def test_a_lifeline_that_did_not_come_along(lifeline, tmp_path):
  # As where a program between trainer and worker closes what it does not know.
  code = f'import subprocess; subprocess.call([{sys.executable!r}, "-m", "dreamer_envs"])'
  mark = tmp_path / 'closed'
  with Trainer('py:envs:Echo', command=[sys.executable, '-c', code], lifeline=lifeline,
               kwargs={'mark': str(mark)}) as t:
    assert t.step(action=3)['is_first'] and t.step(action=3)['reward'] == 3
    t.close()
    assert 'no lifeline' in t.log() and mark.exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='needs signals of the lifeline')
@pytest.mark.parametrize('fault', ['hangs', 'sleeps', None])
def test_trainer_is_killed(fault):
  code = (
      'import sys, time; from trainer import Trainer\n'
      f't = Trainer("py:envs:Echo", kwargs={{"fault": {fault!r}}})\n'
      't.step(); t.step()\n'
      't.send(b"\\0")\n'
      'time.sleep(0.3); print(t.process.pid, flush=True); time.sleep(600)')
  trainer = subprocess.Popen([sys.executable, '-c', code], cwd=HERE, stdout=subprocess.PIPE,
                             text=True)
  try:
    pid = int(trainer.stdout.readline())
    assert alive(pid)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    assert until(lambda: not alive(pid))
  finally:
    trainer.kill()


def test_lifeline_without_the_kernel():
  code = 'import sys; sys.platform = "other"; from dreamer_envs.worker import main; main()'
  with Trainer('py:envs:Echo', command=[sys.executable, '-c', code],
               kwargs={'fault': 'sleeps'}) as t:
    t.step()
    t.shut('line')
    t.process.wait(2)


def test_memory_with_a_name_works_and_is_removed():
  # Where the system has no files without a name.
  code = ('import os; vars(os).pop("memfd_create", None); '
          'from dreamer_envs.worker import main; main()')
  command = [sys.executable, '-c', code]
  with Trainer('py:envs:Echo', command=command) as t:
    assert not t.answer['memory'].startswith('/proc/')
    assert t.step(action=3)['is_first'] and t.step(action=3)['reward'] == 3
  with Trainer('py:envs:Echo', command=command, start=False) as t:  # It never gets to open it.
    path = t.line_of_json()['memory']
    assert os.path.exists(path)
    assert t.close() == 0 and not os.path.exists(path)
  ours = lambda: {name for name in os.listdir('/dev/shm') if name.startswith('dreamer-')}
  before = ours()
  with Trainer('py:envs:Echo', command=command, start=False) as t:  # It is gone before that.
    t.shut('answers')
    assert t.close() == 0 and ours() <= before


def test_another_version_is_refused():
  with Trainer('py:envs:Echo', version=3, start=False) as t:
    with pytest.raises(WorkerError) as e:
      t.begin(1)
    assert 'speaks version 3 of the protocol, this package version 2' in e.value.args[0]['error']


def test_worker_in_c(tmp_path):
  source = os.path.join(ROOT, '..', 'examples', 'worker.c')
  program = str(tmp_path / 'worker')
  subprocess.run(['cc', '-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source], check=True)
  with Trainer('exec:worker', command=[program]) as t:
    assert sorted(t.obs[0]) == sorted(FLAGS + ['number'])
    obs, total, length = t.step(), 0, 0
    assert obs['is_first']
    while not obs['is_last']:
      obs = t.step(sign=int(obs['number'] > 0))
      assert not obs['is_first']
      total, length = total + obs['reward'], length + 1
    assert total == length and not obs['is_terminal']
    assert t.step()['is_first']
    assert t.close() == 0
