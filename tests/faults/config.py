"""A few steps of the toy system on pairs of files: `--config.data.train.clean=CLEAN --config.data.train.noisy=NOISY`"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
    del variant
    return ConfigDict({
        'system': 'toy', 'model': {'width': 4}, 'init_from': '',
        'data': {'name': 'folders', 'train': {'clean': '', 'noisy': ''}, 'validation': {}},
        'train': {'steps': 24, 'batch_size': 4, 'crop_seconds': 0.25, 'eval_every': 6, 'save_every': 2, 'log_every': 1,
                  'ema_decay': 0.9, 'max_minutes': 0.0, 'seed': 0},
        'optimizer': {'learning_rate': 1e-3}, 'log': {'audio_examples': 0}, 'parallel': {'mapper': 'shard_map'}}).lock()
