"""The game behind minecraft.py: a MineRL environment with every item and a break speed."""

import numpy as np


def engine(size, break_speed):
  for alias in (float, int, bool):  # Used by MineRL, and absent from some versions of numpy.
    if not hasattr(np, alias.__name__):
      setattr(np, alias.__name__, alias)
  from minerl.herobraine.env_spec import EnvSpec
  from minerl.herobraine.hero import handler, handlers, mc

  class BreakSpeed(handler.Handler):

    def to_string(self):
      return f'break_speed({break_speed})'

    def xml_template(self):
      return f'<BreakSpeedMultiplier>{break_speed}</BreakSpeedMultiplier>'

  class World(EnvSpec):

    def create_agent_start(self):
      return [BreakSpeed()]

    def create_server_world_generators(self):
      return [handlers.DefaultWorldGenerator(force_reset=True)]

    def create_server_quit_producers(self):
      return [handlers.ServerQuitWhenAnyAgentFinishes()]

    def create_server_initial_conditions(self):
      return [
          handlers.TimeInitialCondition(allow_passage_of_time=True, start_time=0),
          handlers.SpawningInitialCondition(allow_spawning=True)]

    def create_observables(self):
      return [
          handlers.POVObservation(size), handlers.FlatInventoryObservation(mc.ALL_ITEMS),
          handlers.EquippedItemObservation(mc.ALL_ITEMS, _default='air', _other='other'),
          handlers.ObservationFromCurrentLocation(), handlers.ObservationFromLifeStats()]

    def create_actionables(self):
      keys = ('forward', 'back', 'left', 'right', 'jump', 'sneak', 'attack')
      kinds = (
          handlers.PlaceBlock, handlers.EquipAction, handlers.CraftAction,
          handlers.CraftNearbyAction, handlers.SmeltItemNearby)
      items = ['none'] + mc.ALL_ITEMS
      return [
          *(handlers.KeybasedCommandAction(x, mc.INVERSE_KEYMAP[x]) for x in keys),
          handlers.CameraAction(),
          *(kind(items, _other='none', _default='none') for kind in kinds)]

    def create_agent_handlers(self):
      return []

    create_rewardables = create_server_decorators = create_agent_handlers
    create_mission_handlers = create_monitors = create_agent_handlers

    def is_from_folder(self, folder):
      return folder == 'none'

    def get_docstring(self):
      return ''

    def determine_success_from_rewards(self, rewards):
      return True

  return World(name='MineRLEnv-v1').make()
