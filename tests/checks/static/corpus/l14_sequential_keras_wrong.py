# expect: L14
# from: https://github.com/googledatalab/pydatalab/pull/392
import tensorflow as tf

model = tf.keras.Sequential(
    [
        tf.keras.layers.Flatten(input_shape=(28, 28)),
        tf.keras.layers.Dense(128, activation="relu"),
        tf.keras.layers.Dense(10, activation="softmax"),
        tf.keras.layers.Dropout(0.2),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
