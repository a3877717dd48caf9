# expect: none
# from: https://github.com/aymericdamien/TensorFlow-Examples/issues/205
import tensorflow as tf

x = tf.placeholder(tf.float32, [None, 784])
keep_prob = tf.placeholder(tf.float32)
w = tf.Variable(tf.random_normal([784, 256]))
h = tf.nn.relu(tf.matmul(x, w))
h = tf.nn.dropout(h, keep_prob)
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(h, feed_dict={x: [[0.0] * 784], keep_prob: 0.75})
