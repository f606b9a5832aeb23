"""The course's inference.py: models/best_model.pt and test_data.csv in, outputs/submission.csv out."""

from __future__ import annotations

from args import parse_args

from dkt import trainer
from dkt.dataloader import Preprocess
from dkt.utils import get_logger, logging_conf

logger = get_logger(logging_conf)


def main(args):
    logger.info("Preparing data ...")
    preprocess = Preprocess(args=args)
    preprocess.load_test_data(file_name=args.test_file_name)
    test_data = preprocess.get_test_data()

    logger.info("Loading Model ...")
    model = trainer.load_model(args=args)

    logger.info("Make Predictions & Save Submission ...")
    trainer.inference(args=args, test_data=test_data, model=model)


if __name__ == "__main__":
    main(parse_args())
