# expect: L4
# from: https://github.com/aymericdamien/TensorFlow-Examples/issues/205
import tensorflow as tf

w = tf.Variable(tf.random.normal([784, 256]))


@tf.function
def forward(x, keep_prob):
    h = tf.nn.relu(tf.matmul(x, w))
    return tf.nn.dropout(h, keep_prob)
