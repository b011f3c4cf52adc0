"""Models of this package, registered with the Auto classes of transformers."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from .modeling_cnn_discriminator import CNNDiscriminatorConfig, CNNDiscriminatorForSequenceClassification
from .modeling_ensemble_generator import EnsembleGeneratorConfig, EnsembleGeneratorForCausalLM
from .modeling_leak_generator import LeakGeneratorConfig, LeakGeneratorForCausalLM, LeakGeneratorModel
from .modeling_relational_memory import (
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RelationalMemoryModel,
)
from .modeling_relgan_discriminator import RelGANDiscriminatorConfig, RelGANDiscriminatorForSequenceClassification
from .modeling_rnn_discriminator import RNNDiscriminatorConfig, RNNDiscriminatorForSequenceClassification
from .modeling_rnn_generator import RNNGeneratorConfig, RNNGeneratorForCausalLM, RNNGeneratorModel


for _config, _auto, _model in (
    (RNNGeneratorConfig, AutoModel, RNNGeneratorModel),
    (RNNGeneratorConfig, AutoModelForCausalLM, RNNGeneratorForCausalLM),
    (LeakGeneratorConfig, AutoModel, LeakGeneratorModel),
    (LeakGeneratorConfig, AutoModelForCausalLM, LeakGeneratorForCausalLM),
    (RelationalMemoryConfig, AutoModel, RelationalMemoryModel),
    (RelationalMemoryConfig, AutoModelForCausalLM, RelationalMemoryForCausalLM),
    (EnsembleGeneratorConfig, AutoModelForCausalLM, EnsembleGeneratorForCausalLM),
    (CNNDiscriminatorConfig, AutoModelForSequenceClassification, CNNDiscriminatorForSequenceClassification),
    (RelGANDiscriminatorConfig, AutoModelForSequenceClassification, RelGANDiscriminatorForSequenceClassification),
    (RNNDiscriminatorConfig, AutoModelForSequenceClassification, RNNDiscriminatorForSequenceClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    _auto.register(_config, _model, exist_ok=True)
    # the modeling files are saved beside the weights, so that they load where this package is not installed
    _config.register_for_auto_class()
    _model.register_for_auto_class(_auto.__name__)
