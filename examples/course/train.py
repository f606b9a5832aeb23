"""The course's train.py: one of its three models on train_data.csv, the best epoch in models/best_model.pt.

    python -m dkt simulate data && python examples/course/train.py --model lstmattn
    python examples/course/inference.py --model lstmattn

The course's own file does the same with `wandb.login()` and `wandb.init()` besides, for which one needs an account.
"""

from __future__ import annotations

from args import parse_args

from dkt import trainer
from dkt.dataloader import Preprocess
from dkt.utils import get_logger, logging_conf, set_seeds

logger = get_logger(logging_conf)


def main(args):
    set_seeds(args.seed)

    logger.info("Preparing data ...")
    preprocess = Preprocess(args)
    preprocess.load_train_data(file_name=args.file_name)
    train_data = preprocess.get_train_data()
    train_data, valid_data = preprocess.split_data(data=train_data)

    logger.info("Building Model ...")
    model = trainer.get_model(args=args)

    logger.info("Start Training ...")
    trainer.run(args=args, train_data=train_data, valid_data=valid_data, model=model)


if __name__ == "__main__":
    main(parse_args())
