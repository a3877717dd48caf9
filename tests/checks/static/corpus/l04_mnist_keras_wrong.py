# expect: L4
# from: https://github.com/deeplearningzerotoall/TensorFlow/issues/122
import tensorflow as tf

learning_rate = 0.001
keep_prob = 0.7


def create_model():
    model = tf.keras.Sequential()
    model.add(tf.keras.layers.Flatten(input_shape=(28, 28)))
    model.add(tf.keras.layers.Dense(256, activation="relu"))
    model.add(tf.keras.layers.Dropout(rate=keep_prob))
    model.add(tf.keras.layers.Dense(10))
    return model
