"""TensorFlow's converter on a Keras model, its softmax left out; ``scheme`` is float or int8; float inputs."""

import job
import keras
import tensorflow as tf


def logits(net: keras.Model) -> keras.Model:
    """The model with the scores before the softmax as its output, for a batch of one."""
    net.layers[-1].activation = keras.activations.linear
    image = keras.Input(batch_shape=(1, *net.input_shape[1:]))
    return keras.Model(image, net(image))


def main() -> None:
    told = job.Job.read()
    converter = tf.lite.TFLiteConverter.from_keras_model(logits(keras.models.load_model(told.model, compile=False)))
    if told.options["scheme"] != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x] for batch in told.batches() for x in batch.values())
        ops = tf.lite.OpsSet
        int16 = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [
            int16 if told.options["scheme"] == "int16x8" else ops.TFLITE_BUILTINS_INT8
        ]
    told.to.write_bytes(converter.convert())


if __name__ == "__main__":
    main()
