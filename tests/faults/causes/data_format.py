"""The data are not what the program expects."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("data_format")

# Workers re-raise a dataset's error with "Caught … in DataLoader worker process".
LOADED = """
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        {item}

def main():
    for step, batch in enumerate(DataLoader(Rows(), batch_size=$batch, num_workers={workers})):
        log.info("step %d fetched %d rows", step, $batch)

if __name__ == "__main__":
    main()
"""


def loaded(item: str, workers: int = 0) -> str:
    return LOADED.format(item=item, workers=workers)


fault(
    "missing_field",
    "key",
    loaded("""row = {"text": "a b c", "label": 1} if index < 3 * $batch else {"text": "a b c"}
        return len(row["text"]), row["label"]"""),
    says=("KeyError: 'label'",),
    because="rows after the third batch have no label",
    exit=1,
)
fault(
    "missing_field",
    "key_in_worker",
    loaded(
        """row = {"input_ids": [1, 2]} if index < 3 * $batch else {"tokens": [1, 2]}
        return torch.tensor(row["input_ids"])""",
        2,
    ),
    says=("Caught KeyError in DataLoader worker process", "KeyError: 'input_ids'"),
    enough=("KeyError: 'input_ids'",),
    because="later rows name the field otherwise",
    exit=1,
)
fault(
    "missing_field",
    "csv_column",
    """
import csv

with open("$shard.csv") as file:
    for number, row in enumerate(csv.DictReader(file)):
        text, target = row["text"], int(row["target"])
        log.info("row %d: %d characters, class %d", number, len(text), target)
""",
    says=("KeyError: 'target'",),
    because="the file's column is called label",
    stage=Stage(files={"$shard.csv": "text,label\nhello,1\nworld,0\n"}),
    exit=1,
)
fault(
    "label_out_of_range",
    "cross_entropy",
    """
import torch
from torch.nn import functional as F

def evaluate(step):
    labels = torch.randint(0, $classes, ($batch,))
    if step == $fail_at:
        labels[0] = $classes
    return F.cross_entropy(torch.randn($batch, $classes), labels)

for step in range(7):
    log.info("step %d loss %.4f", step, evaluate(step).item())
""",
    says=("IndexError: Target", "is out of bounds"),
    because="one label equals the number of classes",
    exit=1,
    fast=True,
)
fault(
    "label_out_of_range",
    "hf_classifier",
    """
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=2)
rows = [{"input_ids": torch.arange(8), "labels": index % 3} for index in range(48)]
arguments = TrainingArguments("out", max_steps=6, logging_steps=1, use_cpu=True, report_to=[], per_device_train_batch_size=$batch)
Trainer(BertForSequenceClassification(config), arguments, train_dataset=rows).train()
""",
    says=("IndexError: Target 2 is out of bounds",),
    because="three classes of labels reach a head of two",
    exit=1,
)
fault(
    "label_out_of_range",
    "token_id",
    """
import torch
from torch import nn

table = nn.Embedding(1000, $width)
for step in range(6):
    ids = torch.randint(0, 1000 if step < $fail_at else 1064, ($batch, 256))
    log.info("step %d ids up to %d of vocabulary 1000", step, ids.max().item())
    table(ids)
""",
    says=("IndexError: index out of range in self", "vocabulary 1000"),
    because="the data hold token ids beyond the embedding table",
    confidence="medium",
    exit=1,
)
fault(
    "inconsistent_sample_shape",
    "collate",
    loaded("return torch.zeros($width if index != 2 * $batch + 1 else $width - 3)"),
    says=("RuntimeError: stack expects each tensor to be equal size",),
    because="one sample is shorter and nothing pads",
    exit=1,
)
fault(
    "inconsistent_sample_shape",
    "collate_in_worker",
    loaded("return torch.zeros(8 + index % 3, $width)", 2),
    says=("in DataLoader worker process", "stack expects each tensor to be equal size"),
    enough=("stack expects each tensor to be equal size",),
    because="samples of different lengths are stacked without padding",
    exit=1,
)
fault(
    "inconsistent_sample_shape",
    "tokenizer_without_padding",
    """
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

words = {word: index for index, word in enumerate(["[UNK]", "[PAD]", "the", "cat", "sat", "down"])}
core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")
log.info("tokenizing")
tokenizer(["the cat", "the cat sat down"], return_tensors="pt")
""",
    says=("ValueError: Unable to create tensor, you should probably activate truncation and/or padding",),
    because="sequences of two lengths are made one tensor without padding",
    exit=1,
)
fault(
    "invalid_json_or_csv",
    "jsonl",
    """
import json

def rows(path):
    with open(path) as file:
        for number, line in enumerate(file):
            yield number, json.loads(line)

for number, row in rows("$shard.jsonl"):
    log.info("row %d: %s", number, row["text"])
""",
    says=("json.decoder.JSONDecodeError",),
    because="the third line of the data is cut off",
    stage=Stage(files={"$shard.jsonl": '{"text": "a"}\n{"text": "b"}\n{"text": "c\n{"text": "d"}\n'}),
    exit=1,
)
fault(
    "invalid_json_or_csv",
    "csv_columns",
    """
import numpy as np

log.info("loading %s", "$shard.csv")
table = np.loadtxt("$shard.csv", delimiter=",")
log.info("table %s", table.shape)
""",
    says=("ValueError: the number of columns changed from 3 to 4 at row",),
    because="a row of the table has one column too many",
    stage=Stage(files={"$shard.csv": "1,2,3\n4,5,6\n7,8,9,10\n"}),
    exit=1,
)
fault(
    "invalid_json_or_csv",
    "csv_text_in_number",
    """
import numpy as np

log.info("loading features from %s", "$shard.csv")
table = np.loadtxt("$shard.csv", delimiter=",")
""",
    says=("ValueError: could not convert string 'n/a' to float64 at row",),
    because="a cell of the table is a word",
    stage=Stage(files={"$shard.csv": "1,2,3\n4,n/a,6\n"}),
    exit=1,
)
fault(
    "unreadable_media",
    "wave",
    """
import wave

def length(path):
    with wave.open(path) as sound:
        return sound.getnframes() / sound.getframerate()

log.info("scanning clips")
log.info("%.2f s", length("clips/$shard.wav"))
""",
    says=("wave.Error: file does not start with RIFF id",),
    because="the clip is a text file with the ending .wav",
    stage=Stage(files={"clips/$shard.wav": "<html>404 not found</html>" * 9}),
    exit=1,
)
fault(
    "unreadable_media",
    "image_in_worker",
    "import os, sys\nsys.path.append(os.environ['VISION'])\nfrom PIL import Image\n"
    + loaded("return len(Image.open('images/$shard.jpg').convert('RGB').tobytes())", 1),
    says=("PIL.UnidentifiedImageError: cannot identify image file",),
    because="the image file holds text",
    stage=Stage(files={"images/$shard.jpg": "not a picture " * 20}),
    needs=("vision",),
    exit=1,
)
fault(
    "unreadable_media",
    "truncated_image",
    """
import os
sys.path.append(os.environ["VISION"])
import numpy as np
from PIL import Image

Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save("$shard.png")
data = open("$shard.png", "rb").read()
open("$shard.png", "wb").write(data[: len(data) // 2])
log.info("decoding")
Image.open("$shard.png").convert("RGB")
""",
    says=("OSError:", "truncated"),
    because="the second half of the picture is missing",
    needs=("vision",),
    exit=1,
)
fault(
    "multimodal_token_mismatch",
    "llava",
    """
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16)
text = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100)
model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=99))
ids = torch.tensor([[1, 99, 5, 6, 7]])
log.info("forward of one picture and %d tokens", ids.shape[1])
model(input_ids=ids, pixel_values=torch.randn(1, 3, 16, 16))
""",
    says=("mage features and image tokens do not match",),
    because="the prompt has one image token, the picture four features",
    exit=1,
)
fault(
    "dataset_too_small",
    "empty_sampler",
    """
import torch
from torch.utils.data import DataLoader

rows = [row for row in range(200) if row > 500]
log.info("kept %d of 200 rows after filtering", len(rows))
loader = DataLoader(rows, batch_size=$batch, shuffle=True)
""",
    says=("ValueError: num_samples should be a positive integer value, but got num_samples=0",),
    because="the filter keeps no row",
    exit=1,
)
fault(
    "dataset_too_small",
    "drop_last",
    """
import torch
from torch.utils.data import DataLoader, TensorDataset

loader = DataLoader(TensorDataset(torch.randn(3, $width)), batch_size=$batch, drop_last=True)
log.info("3 samples, batch size $batch, drop_last: %d batches", len(loader))
total = sum(rows[0].sum() for rows in loader)
log.info("mean loss %.4f", total / len(loader))
""",
    says=("ZeroDivisionError", "0 batches"),
    because="three rows make no full batch",
    exit=1,
)
fault(
    "wrong_encoding",
    "latin1",
    """
open("$shard.txt", "wb").write("caf\\u00e9 na\\u00efve r\\u00e9sum\\u00e9\\n".encode("latin-1") * 40)
log.info("reading corpus")
with open("$shard.txt", encoding="utf-8") as file:
    for line in file:
        log.info("%s", line)
""",
    says=("UnicodeDecodeError: 'utf-8' codec can't decode byte",),
    because="the corpus is Latin-1 and read as UTF-8",
    exit=1,
    fast=True,
)
fault(
    "wrong_encoding",
    "ascii_locale",
    """
open("$shard.txt", "w", encoding="utf-8").write("z\\u00fcrich \\u2013 gen\\u00e8ve\\n" * 9)
log.info("building vocabulary")
words = open("$shard.txt", encoding="ascii").read().split()
""",
    says=("UnicodeDecodeError: 'ascii' codec can't decode byte",),
    because="UTF-8 text is read as ASCII",
    exit=1,
)
