# expect: none
# from: https://www.tensorflow.org/api_docs/python/tf/compat/v1/nn/dropout
import tensorflow as tf


@tf.function
def forward(x, w, keep_prob):
    h = tf.nn.relu(tf.matmul(x, w))
    h = tf.compat.v1.nn.dropout(h, keep_prob=keep_prob)
    return tf.nn.dropout(h, rate=1 - keep_prob)
